"""What crosses a stage: frozen dataclasses, framework-free, each of which can be written as JSON and read back.

Arrays do not travel in records: they lie in ``.npz`` files, programs in ``.pt2`` files, and records carry their paths.
Every figure carries its unit in its name. ``None`` means "not known" or "not run", never zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field, TypeAdapter

from edgekit.analysis_records import Compute as Compute
from edgekit.analysis_records import ComputeUnits as ComputeUnits
from edgekit.analysis_records import HalfCompute as HalfCompute
from edgekit.analysis_records import HalfPrecision as HalfPrecision
from edgekit.analysis_records import OperationLoss as OperationLoss
from edgekit.analysis_records import OperationPlacement as OperationPlacement
from edgekit.analysis_records import Placement as Placement
from edgekit.analysis_records import PlacementKind as PlacementKind
from edgekit.analysis_records import PlacementRequest as PlacementRequest
from edgekit.analysis_records import Unit as Unit
from edgekit.errors import ArtifactError
from edgekit.profile_records import MODEL_LAYERS as MODEL_LAYERS
from edgekit.profile_records import SQNR_CEILING_DB as SQNR_CEILING_DB
from edgekit.profile_records import Bound as Bound
from edgekit.profile_records import ComputeUnitTimes as ComputeUnitTimes
from edgekit.profile_records import DeviceParity as DeviceParity
from edgekit.profile_records import EmulatedOperator as EmulatedOperator
from edgekit.profile_records import EmulatedProfile as EmulatedProfile
from edgekit.profile_records import GuestMemoryBytes as GuestMemoryBytes
from edgekit.profile_records import InstructionCounts as InstructionCounts
from edgekit.profile_records import LatencyEstimateMs as LatencyEstimateMs
from edgekit.profile_records import LatencyMs as LatencyMs
from edgekit.profile_records import MeasuredProfile as MeasuredProfile
from edgekit.profile_records import MemoryBytes as MemoryBytes
from edgekit.profile_records import ModelLayer as ModelLayer
from edgekit.profile_records import OperatorTime as OperatorTime
from edgekit.profile_records import OutputParity as OutputParity
from edgekit.profile_records import PredictedOperator as PredictedOperator
from edgekit.profile_records import PredictedProfile as PredictedProfile
from edgekit.profile_records import Profile as Profile
from edgekit.profile_records import ProfileConfig as ProfileConfig
from edgekit.profile_records import ProfileKind as ProfileKind
from edgekit.profile_records import RuntimeInfo as RuntimeInfo
from edgekit.profile_records import Status as Status
from edgekit.weight_records import CompressionGranularity as CompressionGranularity
from edgekit.weight_records import CompressionScheme as CompressionScheme
from edgekit.weight_records import TableValues as TableValues
from edgekit.weight_records import WeightCompression as WeightCompression

SCHEMA_VERSION = 1
"""Version of ``manifest.json`` and of every other document that edgekit writes."""

Precision = Literal["fp32", "fp16", "int8", "int8-dynamic", "w8", "w6", "w4", "int16x8"]
FormatName = Literal["tflite", "executorch", "coreml", "onnx"]
FrameworkName = Literal["pytorch", "keras"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-dynamic", "w8", "w6", "w4", "int16x8")
FORMATS: tuple[FormatName, ...] = ("tflite", "executorch", "coreml", "onnx")


AnyProfile = cast("type[Profile]", Annotated[Profile, Field(discriminator="kind")])
"""What to read a profile as (:func:`from_json`) whose kind of number is not known beforehand."""


def _fail(what: str, expected: str, received: object) -> None:
    raise ValueError(f"{what}: expected {expected}, received {received!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Affine quantization of a tensor: ``real = scale * (integer - zero_point)``.

    Attributes:
        scale: One scale, or one a channel.
        zero_point: As many as scales.
        axis: The channel axis when there are several scales, else None.
        dtype: Integer dtype in numpy's words (``int8``), or ``int4``.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    dtype: str = "int8"

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or not self.scale:
            _fail("Quantization", "as many zero points as scales, at least one", (self.scale, self.zero_point))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: Its name in the model or artifact.
        dtype: numpy's name (``float32``, ``int64``, ``bool`` ...).
        shape: Sizes; None where the size is free (dynamic batch).
        layout: ``NCHW``, ``NHWC`` for images, else None.
        quantization: For integer tensors that stand for real numbers.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """A model in its own framework, as loaded and inspected (the module itself stays in its process)."""

    framework: FrameworkName
    source: str
    digest: str
    parameters: int
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[tuple[str, str], ...] = ()
    """``(dotted name, class name)`` of every layer, containers included: what layer rules are matched against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedLayer:
    """A layer that compression left alone, and the named reason."""

    name: str
    type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The framework-free hand-over: a ``torch.export.ExportedProgram`` on disk.

    Quantized programs hold explicit ``quantized_decomposed`` quantize/dequantize operations, weights folded to
    integers. Convolutions are NCHW.

    Attributes:
        path: The ``.pt2`` file.
        precision: ``fp32`` (also the source of fp16 artifacts), ``int8``, ``int8-dynamic``, ``w8`` or ``w4``; ``fp16``
            and ``int16x8`` where the source framework's own converter wrote ``origin`` at that precision.
        dynamic_batch: Whether dimension 0 of every input is free.
        inputs: Names and shapes as a user feeds them.
        outputs: In the order in which the program returns them.
        reference: ``.npz`` of the verification samples: ``input_<i>``, ``label`` (optional), ``source_output_<i>``
            (float model), ``program_output_<i>`` (this program), batch in axis 0.
        calibration: ``.npz`` of calibration samples: ``input_<i>``, batch in axis 0; None where there are none.
        output_steps: The quantization step of each output (scale), None where the output is not quantized.
        task: ``classification`` when labels are class indices, else None.
        source_accuracy: Task accuracy of the source model on the verification samples.
        program_accuracy: The same of this program.
        skipped: What compression left alone.
        sparsity: Share of zero weights in the program's matrices and kernels.
        warnings: What the user should know: a useless calibration set, outputs compared on generated inputs only.
        origin: The ``.tflite`` file that the program was read from, written by the source framework's own converter;
            the TFLite exporter publishes it instead of lowering the program again. None: no such file.
    """

    path: Path
    precision: Precision
    dynamic_batch: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Path
    calibration: Path | None
    output_steps: tuple[float | None, ...]
    task: Literal["classification"] | None = None
    source_accuracy: float | None = None
    program_accuracy: float | None = None
    skipped: tuple[SkippedLayer, ...] = ()
    sparsity: float = 0.0
    warnings: tuple[str, ...] = ()
    origin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What an exporter is asked for.

    Attributes:
        program: Which program to lower. Its precision may differ from the artifact's: an fp16 artifact is lowered
            from the fp32 program; ``program_precision`` of the format's spec says which.
        precision: The artifact's precision.
        backend: ``xnnpack``, ``coreml``, ``portable`` for ExecuTorch; None elsewhere.
        minimum_deployment_target: Core ML only, such as ``iOS17``.
        compression: Core ML only: how the file holds weights; None: the format's own.
        variant: What the artifact is called for it, see :func:`artifact_id`.
        keep_float32: Core ML only: which layers and operations of a float16 artifact compute in float32; None:
            ``auto``, those that its samples show to need it.
        dynamic_batch: Whether the artifact must take any batch size.
        output: Path of the artifact to write (a folder for ``.mlpackage``).
        work_dir: Scratch folder of this export.
    """

    program: Program
    format: FormatName
    precision: Precision
    output: Path
    work_dir: Path
    backend: str | None = None
    minimum_deployment_target: str | None = None
    compression: WeightCompression | None = None
    variant: str = ""
    keep_float32: Literal["auto"] | tuple[str, ...] | None = None
    dynamic_batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operation of an artifact, as its runtime will execute it.

    Attributes:
        index: Position in execution order.
        name: A name a user recognises (output tensor, or source layer path), unique where the format allows.
        type: The format's own word (``CONV_2D``, ``aten.convolution.default``, ``conv``, ``QLinearConv``).
        delegated: Whether the accelerated backend takes it.
        reason: Why it was left out, when it was.
        compute_dtype: What it computes in: ``float32``, ``float16``, ``int8``, ``int16``; ``none``: it only moves data.
        macs: Multiply-accumulates of one inference at batch 1; 0 for operations that have none.
        weight_bytes: Bytes of constants it reads.
        weight_dtype: Their dtype; None when it has none.
        kind: ``quantize``, ``dequantize``, ``layout`` (transpose, reshape, copy) or ``compute``.
    """

    index: int
    name: str
    type: str
    delegated: bool
    compute_dtype: str
    reason: str | None = None
    macs: int = 0
    weight_bytes: int = 0
    weight_dtype: str | None = None
    kind: Literal["compute", "quantize", "dequantize", "layout"] = "compute"


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateCoverage:
    """The share that the accelerated backend took (each 0 to 1), and why the rest was refused."""

    delegate: str
    partitions: int | None
    operators: float
    macs: float
    time: float | None = None
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionAudit:
    """Is it truly int8? Shares (0 to 1) by dtype, and what breaks the integer path.

    Attributes:
        operators: compute dtype -> share of computing operators.
        macs: compute dtype -> share of multiply-accumulates.
        weights: weight dtype -> share of weight bytes.
        float_islands: Names of float operators that lie between integer ones.
        stray_pairs: Names of dequantize operators followed at once by a quantize.
    """

    operators: dict[str, float]
    macs: dict[str, float]
    weights: dict[str, float]
    float_islands: tuple[str, ...] = ()
    stray_pairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file (or ``.mlpackage`` folder) of one format and precision, with what is known about it."""

    format: FormatName
    precision: Precision
    path: Path
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend: str | None = None
    minimum_deployment_target: str | None = None
    variant: str = ""
    dynamic_batch: bool = False
    operators: tuple[Operator, ...] = ()
    coverage: DelegateCoverage | None = None
    audit: PrecisionAudit | None = None
    notes: tuple[str, ...] = ()
    half_precision: HalfPrecision | None = None
    placement: Placement | None = None

    @property
    def id(self) -> str:
        """``tflite/int8``, ``executorch/int8@coreml`` (not the format's first backend), ``coreml/w4+palette-g16``."""
        return artifact_id(self.format, self.precision, self.backend, self.variant)


def artifact_id(format_name: str, precision: str, backend: str | None = None, variant: str = "") -> str:
    """Name an artifact as recipes and budgets do: ``format/precision[+variant][@backend]``.

    Args:
        format_name: Such as ``coreml``.
        precision: Such as ``w4``.
        backend: ``xnnpack`` is understood.
        variant: Name of the way in which weights are stored; empty: the precision says enough.

    Example:
        >>> artifact_id("coreml", "w4", variant="palette-g16")
        'coreml/w4+palette-g16'
    """
    named = f"+{variant}" if variant else ""
    suffix = f"@{backend}" if backend not in (None, "xnnpack") else ""
    return f"{format_name}/{precision}{named}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """An artifact's outputs against a reference, on real inputs.

    Attributes:
        status: ``not run`` where the artifact's runtime does not exist on this machine; then the rest is empty.
        reason: Why it failed or was not run.
        samples: How many samples were compared.
        versus_source: Each output against the source (float) model.
        versus_program: Each output against the program it was lowered from.
        accuracy: Task accuracy of the artifact on the verification samples.
        accuracy_drop: Source accuracy minus artifact accuracy (negative: it gained).
    """

    status: Status
    reason: str | None
    samples: int
    versus_source: tuple[OutputParity, ...] = ()
    versus_program: tuple[OutputParity, ...] = ()
    accuracy: float | None = None
    accuracy_drop: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Error of one layer's output in the quantized program against the float one, on verification samples."""

    layer: str
    type: str
    sqnr_db: float
    max_abs_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One check of one artifact: its limit, what was found, and whether it held.

    Attributes:
        check: ``size``, ``latency_p50``, ``latency_p95``, ``peak_memory``, ``accuracy``, ``accuracy_drop``,
            ``sqnr_db``, ``max_steps``, ``delegated``, ``instructions``, ``parity`` ...
        artifact: ``tflite/int8``.
        target: The device, for figures of a profile.
        limit, value: In ``unit``; None where there is none.
        unit: ``bytes``, ``ms``, ``dB``, ``steps``, ``share`` or ``""``.
        direction: ``max``: the value may not be above the limit; ``min``: not below.
        status: ``not run`` counts as broken for a budget: a budget on a figure that was not measured is not kept.
        baseline: The figure of the earlier build, for checks against a baseline (``size_vs_baseline`` ...).
        kind: Of a profile's figure: ``measured``, ``emulated`` or ``predicted``; None for other figures.
        band: Between which values (``unit``) the true one is expected, of an estimate; the upper end None: unbounded.
        details: What the message sums up, such as the operators whose counts changed.
    """

    check: str
    artifact: str
    target: str | None
    limit: float | None
    value: float | None
    unit: str
    direction: Literal["max", "min"]
    status: Status
    message: str
    baseline: float | None = None
    kind: ProfileKind | None = None
    band: tuple[float, float | None] | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactReport:
    """An artifact with all that was found out about it.

    ``error`` is set where its export or its run failed, ``other_errors`` where more than one target failed.
    """

    id: str
    artifact: Artifact | None
    parity: Parity | None = None
    profiles: tuple[Annotated[Profile, Field(discriminator="kind")], ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    error: StageFailure | None = None
    other_errors: tuple[StageFailure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFailure:
    """A stage that failed: which, how, and where its log is (relative to the build folder)."""

    stage: str
    message: str
    log: str | None
    exit_code: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """One epoch of training."""

    epoch: int
    phase: str
    loss: float
    accuracy: float | None
    validation_accuracy: float | None
    learning_rate: float
    sparsity: float
    samples_per_second: float
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What training did. ``device`` and ``autocast`` are what ``auto`` became."""

    device: str
    autocast: str
    epochs: tuple[EpochMetrics, ...]
    seconds: float
    sparsity: float
    sparsity_by_layer: dict[str, float] = field(default_factory=dict)
    clusters_by_layer: dict[str, int] = field(default_factory=dict)
    """Distinct weights of each clustered layer."""
    skipped: tuple[SkippedLayer, ...] = ()
    """Layers that pruning or clustering left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightHistogram:
    """Histogram of one layer's float weights: ``counts[i]`` weights lie between ``edges[i]`` and ``edges[i + 1]``."""

    layer: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``manifest.json``: one build, whole."""

    schema_version: int
    name: str
    edgekit_version: str
    recipe: dict[str, Any]
    tools: dict[str, str]
    seed: int
    source: SourceModel | None
    source_accuracy: float | None
    data_digest: str
    training: TrainingReport | None
    artifacts: tuple[ArtifactReport, ...]
    skipped: tuple[SkippedLayer, ...] = ()
    layer_errors: tuple[LayerError, ...] = ()
    weight_histograms: tuple[WeightHistogram, ...] = ()
    warnings: tuple[str, ...] = ()


Record = TypeVar("Record")


def to_json(record: object) -> Any:
    """Turn a record into JSON-ready values (paths become POSIX strings, tuples lists)."""
    return TypeAdapter(type(record)).dump_python(record, mode="json")


def from_json(kind: type[Record], data: Any) -> Record:
    """Read a record back.

    Raises:
        ArtifactError: The document does not hold such a record.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValueError as error:
        name = getattr(kind, "__name__", "one of several records")
        raise ArtifactError(f"expected a document holding {name}; {error}") from error


def dumps(record: object) -> str:
    """Write a record as indented JSON with sorted keys, the same bytes for equal records."""
    return json.dumps(to_json(record), indent=2, sort_keys=True, allow_nan=False) + "\n"
