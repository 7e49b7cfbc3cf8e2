"""What half precision does to one artifact, in a child process: a corrupt file may take its reader down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts import Inspection, load_entry
from edgekit.errors import UnsupportedError
from edgekit.formats import format_of_path, format_specs
from edgekit.pipeline.inspect import require_artifact
from edgekit.process import run_alone
from edgekit.profile.feed import generated_inputs, samples_of
from edgekit.records import HalfCompute, HalfPrecision


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPrecisionRequest:
    """Which artifact, and what to run it on.

    Attributes:
        path: The artifact.
        inputs: ``.npz`` with ``input_<i>``, samples in axis 0; None: one generated sample.
        compute: What is rounded to float16.
    """

    path: Path
    inputs: Path | None
    compute: HalfCompute


def analyse_half_precision(path: Path, inputs: Path | None, compute: HalfCompute) -> HalfPrecision:
    """Find where float16 overflows in an artifact, what it costs, and what to keep in float32.

    Args:
        path: The artifact.
        inputs: ``.npz`` with ``input_<i>``, samples in axis 0 (a build's reference is one); None: one generated sample,
            which proves little: real data decide what overflows.
        compute: ``declared``: rounded where the artifact declares float16; ``fp16``: everywhere.

    Raises:
        ArtifactError: The artifact or the samples are missing or unreadable.
        UnsupportedError: The format has no evaluator whose arithmetic can be chosen.
        DataError: The samples do not fit.
        ToolError: An operation failed.
    """
    require_artifact(path)
    require_evaluator(path)
    return run_alone(
        "edgekit.pipeline.half_precision:analyse_in_child",
        HalfPrecisionRequest(path=path.absolute(), inputs=inputs.absolute() if inputs else None, compute=compute),
        HalfPrecision,
        stage="half precision",
        timeout_s=3600,
    )


def analyse_in_child(request: HalfPrecisionRequest) -> HalfPrecision:
    """Do the work."""
    spec = format_of_path(str(request.path))
    inspection: Inspection = load_entry(spec.inspect)(request.path)
    if request.inputs is None:
        samples = [generated_inputs(inspection.inputs, seed=0)]
    else:
        samples = samples_of(request.inputs, len(inspection.inputs))
    found: HalfPrecision = load_entry(require_evaluator(request.path))(request.path, samples, request.compute)
    return found


def require_evaluator(path: Path) -> str:
    """Return the entry of an artifact's format that analyses half precision.

    Raises:
        UnsupportedError: Its format has none.
        ArtifactError: It is of no known format.
    """
    spec = format_of_path(str(path))
    if spec.analyse_half_precision is None:
        able = ", ".join(other.title for other in format_specs().values() if other.analyse_half_precision is not None)
        raise UnsupportedError(
            f"--compute for {spec.title} ({path.name})",
            reason=f"its own runtime decides what it computes in; only artifacts of {able} are evaluated here",
            instead="no --compute",
        )
    return spec.analyse_half_precision
