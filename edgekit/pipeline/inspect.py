"""Inspect one artifact, in a child process: a corrupt file may take its reader down, never the command."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts import Inspection, load_entry
from edgekit.errors import ArtifactError
from edgekit.formats import format_of_path
from edgekit.process import run_child
from edgekit.records import SCHEMA_VERSION, DelegateCoverage, Operator, PrecisionAudit, TensorSpec
from edgekit.store.atomic import digest_path, size_bytes
from edgekit.verify.coverage import coverage
from edgekit.verify.precision_audit import audit


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectRequest:
    """Which artifact."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectReport:
    """What an artifact holds."""

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


def inspect_artifact(path: Path) -> InspectReport:
    """Read an artifact without running it.

    Raises:
        ArtifactError: It is missing, truncated, or of no format that edgekit knows.
        StageCrashError: Its reader died; the log is named.
    """
    require_artifact(path)
    with tempfile.NamedTemporaryFile(prefix="edgekit-inspect-", suffix=".log", delete=False) as log:
        place = Path(log.name)
    report = run_child(
        "edgekit.pipeline.inspect:inspect_in_child",
        InspectRequest(path=path.absolute()),
        InspectReport,
        stage="inspect",
        log=place,
        timeout_s=300,
    )
    place.unlink()
    return report


def inspect_in_child(request: InspectRequest) -> InspectReport:
    """Do the reading."""
    spec = format_of_path(str(request.path))
    found: Inspection = load_entry(spec.inspect)(request.path)
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
    )


def require_artifact(path: Path) -> None:
    """Refuse a path that is missing or of no known format.

    Raises:
        ArtifactError: Says which.
    """
    format_of_path(str(path))
    if not path.exists():
        raise ArtifactError(f"expected an artifact at {path}; there is none.")
