"""Inspect one artifact, in a child process: a corrupt file may take its reader down, never the command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.contracts import FormatSpec, Inspection, load_entry
from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.formats import format_of_path, format_specs
from edgekit.process import run_alone
from edgekit.records import (
    SCHEMA_VERSION,
    ComputeUnits,
    DelegateCoverage,
    HalfPrecision,
    Operator,
    Placement,
    PlacementRequest,
    PrecisionAudit,
    TensorSpec,
)
from edgekit.store.atomic import digest_path, size_bytes
from edgekit.targets.measured import measured_placement
from edgekit.targets.measurement import read_document
from edgekit.verify.coverage import coverage
from edgekit.verify.precision_audit import audit


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementQuestion:
    """What is asked about where an artifact's operations run.

    Attributes:
        compute_units: Which units may be used.
        chip: Such as ``m1``; None: any that is known.
        measurement: Result of a measurement on a Mac (of ``targets/macos/measure.py``) with Core ML's own plan; None:
            the plan is asked of this machine where it is a Mac.
    """

    compute_units: ComputeUnits = "all"
    chip: str | None = None
    measurement: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectRequest:
    """Which artifact, and whether its placement is asked for."""

    path: Path
    placement: PlacementQuestion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectReport:
    """What an artifact holds.

    Attributes:
        placement: Where its operations are expected to run; None: not asked.
        plan: Where Core ML itself would run them; None: not asked, or no Mac said it.
        half_precision: What float16 does to it; None: not asked.
    """

    schema_version: int = SCHEMA_VERSION
    format: str
    path: Path
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[Operator, ...]
    coverage: DelegateCoverage | None
    audit: PrecisionAudit
    placement: Placement | None = None
    plan: Placement | None = None
    half_precision: HalfPrecision | None = None


def inspect_artifact(path: Path, *, placement: PlacementQuestion | None = None) -> InspectReport:
    """Read an artifact without running it.

    Args:
        path: The artifact.
        placement: Also say where its operations run.

    Raises:
        ArtifactError: It is missing, truncated, or of no format that edgekit knows; or the measurement is of another
            artifact.
        UnsupportedError: Nobody can say where operations of this format run.
        TargetError: There is no such chip.
        StageCrashError: Its reader died; the log is named.
    """
    require_artifact(path)
    plan = None
    if placement is not None:
        require_placement(path)
        if placement.measurement is not None:
            plan = read_plan(placement.measurement, digest_path(path))
    report = run_alone(
        "edgekit.pipeline.inspect:inspect_in_child",
        InspectRequest(path=path.absolute(), placement=placement),
        InspectReport,
        stage="inspect",
        timeout_s=300,
    )
    return report if plan is None else replace(report, plan=plan)


def read_plan(measurement: Path, sha256: str) -> Placement:
    """Read Core ML's own plan of an artifact from the result of a measurement.

    Raises:
        ArtifactError: The file holds no measurement, or none of this artifact with a plan.
    """
    document = read_document(measurement)
    for item in document.measurements:
        if item.plan is not None and item.artifact.sha256 in (sha256, None):
            return measured_placement(item.plan, document.machine.get("chip"))
    planned = [item.artifact.name for item in document.measurements if item.plan is not None]
    raise ArtifactError(
        f"{measurement}: expected a measurement of this artifact (sha256 {sha256}) with a plan of compute units; "
        f"received plans of {', '.join(planned) or 'none'}. Measure it again on a Mac with macOS 14.4 or newer."
    )


def inspect_in_child(request: InspectRequest) -> InspectReport:
    """Do the reading."""
    spec = format_of_path(str(request.path))
    found: Inspection = load_entry(spec.inspect)(request.path)
    asked = request.placement
    return InspectReport(
        format=spec.name,
        path=request.path,
        sha256=digest_path(request.path),
        size_bytes=size_bytes(request.path),
        inputs=found.inputs,
        outputs=found.outputs,
        operators=found.operators,
        coverage=coverage(found.operators, spec.delegate, found.partitions),
        audit=audit(found.operators),
        placement=_placement(spec.place, request.path, asked) if asked is not None else None,
        plan=_placement(spec.ask_placement, request.path, asked)
        if asked is not None and asked.measurement is None
        else None,
    )


def _placement(entry: str | None, path: Path, asked: PlacementQuestion) -> Placement | None:
    if entry is None:
        return None
    request = PlacementRequest(path=path, compute_units=asked.compute_units, chip=asked.chip)
    found: Placement = load_entry(entry)(request)
    return found


def require_placement(path: Path) -> FormatSpec:
    """Return the format of an artifact whose placement can be told.

    Raises:
        UnsupportedError: Nobody can say where its operations run.
        ArtifactError: It is of no known format.
    """
    spec = format_of_path(str(path))
    if spec.place is None:
        able = ", ".join(other.title for other in format_specs().values() if other.place is not None)
        raise UnsupportedError(
            f"--placement for {spec.title} ({path.name})",
            reason=f"its backend is chosen when it is exported; only {able} decides on the device",
            instead="inspect without --placement: the column 'delegated' says what the backend takes",
        )
    return spec


def require_artifact(path: Path) -> None:
    """Refuse a path that is missing or of no known format.

    Raises:
        ArtifactError: Says which.
    """
    format_of_path(str(path))
    if not path.exists():
        raise ArtifactError(f"expected an artifact at {path}; there is none.")
