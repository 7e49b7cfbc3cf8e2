"""The recipe: what a user writes, as pydantic models that refuse unknown keys.

``edgekit recipe schema`` prints the JSON Schema of :class:`Recipe`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from edgekit.errors import RecipeError
from edgekit.recipe.section import LayerRules as LayerRules
from edgekit.recipe.section import Section as Section
from edgekit.recipe.section import as_tuple
from edgekit.recipe.weights import Compression
from edgekit.records import FormatName, FrameworkName, ModelLayer, Precision
from edgekit.units import parse_count, parse_duration_ms, parse_size_bytes


def _parsed(parse: Any) -> Any:
    def convert(value: object) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except RecipeError as error:
                raise ValueError(str(error)) from error
        raise ValueError(f"expected text with a unit, such as '80 KiB' or '2 ms'; received {value!r}")

    return convert


def _parsed_count(value: object) -> object:
    return _parsed(parse_count)(value) if isinstance(value, str) else value


SizeBytes = Annotated[
    int,
    BeforeValidator(_parsed(parse_size_bytes), json_schema_input_type=str),
    PlainSerializer(lambda size: f"{size} B", return_type=str),
]
"""A size written with its unit (``80 KiB``), held in bytes."""

DurationMs = Annotated[
    float,
    BeforeValidator(_parsed(parse_duration_ms), json_schema_input_type=str),
    PlainSerializer(lambda duration: f"{duration!r} ms", return_type=str),
]
"""A duration written with its unit (``2 ms``), held in milliseconds."""


Count = Annotated[
    int,
    BeforeValidator(_parsed_count, json_schema_input_type=int | str),
    Field(ge=0),
]
"""A number of instructions, plain or with a power of a thousand (``180 M``)."""


class ModelSection(Section):
    """Where the model comes from."""

    source: str
    """``package.module:callable``; a ``.pt2``, ``.onnx``, ``.keras``, ``.h5`` or ``.tflite`` file; a SavedModel folder;
    or a state dict (``.pt``) with ``builder``."""
    builder: str | None = None
    """``package.module:callable`` that builds the module a state dict belongs to."""
    weights: str | None = None
    """Weights to load into what ``source`` builds: a state dict, or a Keras weights file."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the callable."""
    trust: bool = False
    """Allow files that execute code when loaded (pickles, Lambda layers and custom objects in Keras files)."""


class DataSection(Section):
    """Where samples come from. Exactly one of ``module``, ``npz``, ``images``, ``csv``."""

    module: str | None = None
    """``package.module:callable`` returning an ``edgekit.data.Dataset``."""
    npz: str | None = None
    """A ``.npz`` file with ``train_x``, ``train_y``, ``test_x`` … or ``x``, ``y``."""
    images: str | None = None
    """A folder of images: one sub-folder a class, or none."""
    csv: str | None = None
    """A CSV file with columns ``path`` and ``label``."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the callable, or of the reader (``size``, ``mean``, ``std`` for images)."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training samples held out for validation where the source names no such split."""
    calibration_samples: int = Field(default=200, ge=1)
    """Training samples that post-training quantization observes."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        given = [key for key in ("module", "npz", "images", "csv") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of module, npz, images, csv; received {given or 'none'}")
        return self


class TrainSection(Section):
    """How to train."""

    epochs: int = Field(default=10, ge=0)
    batch_size: int = Field(default=64, ge=1)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    loss: str = "cross_entropy"
    """``cross_entropy``, ``mse``, or ``package.module:callable`` taking (outputs, labels)."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``."""
    devices: int = Field(default=1, ge=1)
    """Devices that train in parallel, each on its share of a batch."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training (autocast)."""
    compile: bool | Literal["auto"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    seed: int = 0
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation accuracy; the best weights are kept."""


class PruneRule(LayerRules):
    """Zero weights during training."""

    method: Literal["magnitude"] = "magnitude"
    sparsity: float = Field(gt=0, lt=1)
    granularity: Literal["weight", "2:4", "channel"] = "weight"
    schedule: Literal["polynomial", "constant"] = "polynomial"
    begin: float = Field(default=0.2, ge=0, le=1)
    """Share of the training at which pruning starts."""
    end: float = Field(default=0.75, ge=0, le=1)
    """Share at which the final sparsity is reached."""
    every_steps: int = Field(default=20, ge=1)


class ClusterRule(LayerRules):
    """Let the weights of a layer share a few values, with some more training."""

    clusters: int = Field(default=16, ge=2, le=256)
    """Distinct values a layer's weights may take."""
    init: Literal["kmeans++", "linear", "density"] = "kmeans++"
    """Where the first values come from: the weights themselves (``kmeans++``), their range, or their distribution."""
    epochs: int = Field(default=1, ge=1)
    """Epochs of training with shared weights."""
    lr: float | None = Field(default=None, gt=0)
    """Learning rate of those epochs; a tenth of the float one unless given."""


class QuantizeRule(LayerRules):
    """Fix scales, after training or with more training."""

    precision: Literal["int8", "int8-dynamic", "w8", "w4", "int16x8"] = "int8"
    mode: Literal["ptq", "qat"] = "ptq"
    epochs: int = Field(default=3, ge=1)
    """Epochs of quantization-aware training."""
    lr: float | None = Field(default=None, gt=0)
    """Learning rate of quantization-aware training; a tenth of the float one unless given."""
    per_channel: bool = True
    calibration: Literal["minmax", "histogram"] = "minmax"
    unsupported: Literal["refuse", "float"] = "float"
    """Layers that quantization-aware training cannot handle: left in ``float``, named in the report, or refused."""


class DistilRule(Section):
    """Learn from a teacher (Hinton et al. 2015, eq. 4)."""

    teacher: ModelSection
    temperature: float = Field(default=4.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teacher's term; the labels' term has the rest."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _source_only(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class CompressStep(Section):
    """One compression step: exactly one key."""

    prune: PruneRule | None = None
    cluster: ClusterRule | None = None
    quantize: QuantizeRule | None = None
    distil: DistilRule | None = None

    @property
    def kind(self) -> str:
        """``prune``, ``cluster``, ``quantize`` or ``distil``."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_step(self) -> CompressStep:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"expected exactly one of {known} in a step; received {given or 'none'}")
        return self


class ExportRule(Section):
    """One format, at one or more precisions."""

    format: FormatName
    precision: Annotated[tuple[Precision, ...], BeforeValidator(as_tuple)] = Field(default=("fp32",), min_length=1)
    backend: str | None = None
    """ExecuTorch: ``xnnpack`` (default), ``coreml``, ``portable``."""
    minimum_deployment_target: Literal["iOS15", "iOS16", "iOS17", "iOS18"] | None = None
    """Core ML only."""
    compression: Compression | None = None
    """Core ML only: how the file holds weights: ``linear`` (unless given), ``palette``, or a mapping with more."""
    keep_float32: Literal["auto"] | Annotated[tuple[str, ...], BeforeValidator(as_tuple)] | None = None
    """Core ML only: what stays in float32 where the rest computes in float16. ``auto`` (unless given): what overflows,
    or loses too much, on the verification samples. Else layers and operations, by name, pattern or type
    (``type:LayerNorm``, ``type:softmax``); ``[]``: nothing."""
    batch: Literal["dynamic", 1] = 1
    timeout: DurationMs = 900_000.0
    """The export is stopped after so long."""


class OutputTolerance(Section):
    """Limits of one output against the source model."""

    min_sqnr_db: float | None = None
    max_abs_error: float | None = Field(default=None, ge=0)
    min_top1_agreement: float | None = Field(default=None, ge=0, le=1)


class VerifySection(Section):
    """What counts as equal."""

    samples: int = Field(default=256, ge=1)
    max_accuracy_drop: float | None = Field(default=None, ge=0)
    """Source accuracy minus artifact accuracy, as a share (0.01 is one point)."""
    min_sqnr_db: float | None = None
    """Of quantized artifacts against the source model; float ones are held to 90 dB (fp32) and 40 dB (fp16)."""
    max_steps: float | None = Field(default=None, ge=0)
    """Of quantized artifacts against their program, in quantization steps of the output."""
    outputs: dict[str, OutputTolerance] = Field(default_factory=dict)


class ProfileSection(Section):
    """Where and how to time."""

    targets: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("host",)
    num_runs: int = Field(default=50, ge=1)
    warmup_runs: int = Field(default=10, ge=0)
    num_threads: int = Field(default=1, ge=1)
    profile_ops: bool = True
    model: ModelLayer = "static"
    """How emulated targets turn exact counts into time: ``counts`` (not at all), ``static`` (by tables of the core),
    ``trace`` (the core replays what ran; slower)."""


LatencyLimit = dict[str, DurationMs]
CountLimit = dict[str, Count]


class Budget(Section):
    """Limits of one artifact (``tflite/int8``) or of several (``*/int8``)."""

    artifact: str
    size: SizeBytes | None = None
    latency_p50: LatencyLimit = Field(default_factory=dict)
    """Target -> limit."""
    latency_p95: LatencyLimit = Field(default_factory=dict)
    peak_memory: dict[str, SizeBytes] = Field(default_factory=dict)
    instructions: CountLimit = Field(default_factory=dict)
    """Emulated target -> limit of one inference: exact, so a limit may be the very number."""
    load_instructions: CountLimit = Field(default_factory=dict)
    """The same of loading."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    """At least."""
    accuracy_drop: float | None = Field(default=None, ge=0)
    """At most."""
    sqnr_db: float | None = None
    """At least, against the source model."""
    max_steps: float | None = Field(default=None, ge=0)
    """At most, against the program."""
    delegated: float | None = Field(default=None, ge=0, le=1)
    """Share of operators taken by the delegate, at least."""
    neural_engine: float | None = Field(default=None, ge=0, le=1)
    """Core ML: share of multiply-accumulates that the Neural Engine can take (predicted), at least."""


class Recipe(Section):
    """A recipe, whole."""

    schema_version: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    model: ModelSection
    framework: FrameworkName | None = None
    data: DataSection | None = None
    train: TrainSection | None = None
    compress: tuple[CompressStep, ...] = ()
    export: tuple[ExportRule, ...] = Field(min_length=1)
    verify: VerifySection = VerifySection()
    profile: ProfileSection = ProfileSection(targets=())
    budgets: tuple[Budget, ...] = ()

    @field_validator("model", mode="before")
    @classmethod
    def _source_only(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value

    def rule(self, kind: Literal["prune", "cluster", "distil"]) -> PruneRule | ClusterRule | DistilRule | None:
        """Return the one step of this kind, None when there is none."""
        return next((found for step in self.compress if (found := getattr(step, kind)) is not None), None)

    def quantize_rule(self, precision: str) -> QuantizeRule | None:
        """Return the quantize step for this precision, None when the recipe has none."""
        rules = (step.quantize for step in self.compress if step.quantize is not None)
        return next((rule for rule in rules if rule.precision == precision), None)

    @model_validator(mode="after")
    def _steps_are_unique(self) -> Recipe:
        kinds = [f"quantize to {step.quantize.precision}" if step.quantize else step.kind for step in self.compress]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"expected each compression step once; received twice: {', '.join(twice)}")
        return self
