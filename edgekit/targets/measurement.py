"""The document that a measurement on another machine comes back as, checked strictly.

``targets/macos/measure.py`` and the benchmark app of ``targets/ios`` write it; the docstring of the former shows it
whole. It comes from a machine that is not ours, perhaps by mail: whatever does not fit the schema is refused, with the
place named.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekit.errors import ArtifactError
from edgekit.records import ComputeUnits, FormatName, Unit

Array = NDArray[np.generic]

SCHEMA_VERSION = 1
"""Of the document; :func:`read_document` refuses newer ones."""
KIND = "edgekit-measurement"
LARGEST_BYTES = 512 * 2**20
ProblemCode = Literal[
    "artifact_unreadable",
    "inputs_unreadable",
    "wrong_system",
    "system_too_old",
    "runtime_missing",
    "runtime_failed",
    "crashed",
    "timed_out",
]
Milliseconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
Dtype = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"
]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Problem(_Strict):
    """Why something was not measured."""

    code: ProblemCode
    message: str


class Memory(_Strict):
    """Of the process that measured: before the artifact was loaded, after it, and at its highest."""

    baseline: Bytes
    after_load: Bytes
    peak: Bytes
    method: str
    """What was read: ``phys_footprint``, ``resident (VmHWM)``, ``ru_maxrss``."""


class UnitRun(_Strict):
    """One artifact with one choice of compute units."""

    compute_units: ComputeUnits | Literal["cpu"]
    """``cpu``: the runtime has no such choice."""
    load_ms: tuple[Milliseconds, ...]
    """Each load, the first one cold as far as the system allows."""
    first_ms: Milliseconds | None = None
    samples_ms: tuple[Milliseconds, ...]
    memory: Memory | None = None
    error: Problem | None = None

    @model_validator(mode="after")
    def _timed_or_failed(self) -> Self:
        whole = bool(self.load_ms and self.samples_ms) and self.first_ms is not None and self.memory is not None
        if self.error is None and not whole:
            raise ValueError("expected load_ms, first_ms, samples_ms and memory, or an error; received neither")
        return self


class Tensor(_Strict):
    """An output, the samples in axis 0."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    dtype: Dtype
    base64: str
    """The values, row-major, little-endian."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.array()
        return self

    def array(self) -> Array:
        """Return the values.

        Raises:
            ValueError: There are not as many as the shape says, or they are no base64.
        """
        dtype = np.dtype(self.dtype).newbyteorder("<")
        try:
            data = base64.b64decode(self.base64, validate=True)
        except binascii.Error as error:
            raise ValueError(f"expected base64; {error}") from error
        size = int(np.prod(self.shape, dtype=object)) * dtype.itemsize  # object: no overflow of absurd shapes
        if size != len(data):
            raise ValueError(f"expected {size} bytes for {self.dtype} {list(self.shape)}; received {len(data)}")
        return np.frombuffer(data, dtype).reshape(self.shape)


class Outputs(_Strict):
    """What the artifact gave."""

    compute_units: ComputeUnits | Literal["cpu"]
    tensors: tuple[Tensor, ...]


class PlannedOperation(_Strict):
    """One operation, as Core ML's ``MLComputePlan`` has it."""

    name: str
    type: str
    preferred: Unit
    supported: tuple[Unit, ...]
    cost: Annotated[float, Field(ge=0, le=1)] | None = None


class Plan(_Strict):
    """Where Core ML would run each operation."""

    compute_units: ComputeUnits
    operations: tuple[PlannedOperation, ...]


class Runtime(_Strict):
    """What executed the artifact."""

    name: str
    version: str
    delegates: tuple[str, ...] = ()
    package: str | None = None


class ArtifactFacts(_Strict):
    """Which artifact it was."""

    name: str = Field(min_length=1)
    """Of the file; of a bundle, the artifact's name in the build (``coreml/fp16``)."""
    format: FormatName | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Config(_Strict):
    """How it was measured."""

    num_runs: Annotated[int, Field(ge=1)]
    warmup_runs: Annotated[int, Field(ge=0)]
    num_threads: Annotated[int, Field(ge=1)]


class Measurement(_Strict):
    """One artifact."""

    artifact: ArtifactFacts
    runtime: Runtime | None = None
    config: Config
    compile_ms: Milliseconds | None = None
    runs: tuple[UnitRun, ...]
    outputs: Outputs | None = None
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    error: Problem | None = None

    @model_validator(mode="after")
    def _timed_or_failed(self) -> Self:
        if self.error is None and not self.timed:
            raise ValueError("expected at least one run that was timed, or an error; received neither")
        if self.timed and self.runtime is None:
            raise ValueError("expected the runtime of what was timed; received none")
        return self

    @property
    def timed(self) -> tuple[UnitRun, ...]:
        """The runs that were timed."""
        return tuple(run for run in self.runs if run.error is None)


class Tool(_Strict):
    """What measured."""

    name: str
    version: str


class MeasurementDocument(_Strict):
    """Everything that one call of the script, or one run of the app, found out."""

    schema_version: Literal[1]
    kind: Literal["edgekit-measurement"]
    tool: Tool
    machine: dict[str, str]
    conditions: dict[str, str]
    measurements: tuple[Measurement, ...]
    error: Problem | None = None


def read_document(path: Path) -> MeasurementDocument:
    """Read a document from a file.

    Raises:
        ArtifactError: Not readable, too large, or not such a document.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ArtifactError(f"{path}: expected at most {LARGEST_BYTES} bytes; received {path.stat().st_size}")
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: expected the result of a measurement; it cannot be read: {error}") from error
    return parse_document(data, str(path))


def parse_document(data: bytes, place: str) -> MeasurementDocument:
    """Read a document.

    Args:
        data: UTF-8 JSON.
        place: Where it comes from; errors name it.

    Raises:
        ArtifactError: It is no such document, or a newer one; the message names the wrong keys.
    """
    try:
        return MeasurementDocument.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactError(f"{place}: {_describe(error)}") from error


def _describe(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=True)
    for problem in problems:
        if problem["loc"] == ("schema_version",) and isinstance(problem["input"], int):
            received = problem["input"]
            hint = "; update edgekit" if received > SCHEMA_VERSION else ""
            return f"expected schema_version {SCHEMA_VERSION}; received {received}{hint}"
    lines = [f"{'.'.join(map(str, problem['loc'])) or 'document'}: {problem['msg']}" for problem in problems[:5]]
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    return f"expected the result of a measurement ({KIND}); {'; '.join(lines)}{more}"
