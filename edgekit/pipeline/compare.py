"""Two artifacts side by side: what each holds, how far their outputs lie apart, and which is faster, by turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, load_entry
from edgekit.errors import DataError
from edgekit.formats import format_of_path
from edgekit.pipeline.inspect import InspectReport, inspect_artifact
from edgekit.process import run_child
from edgekit.profile.affinity import pinned
from edgekit.profile.feed import first_sample, generated_inputs
from edgekit.profile.interleave import Comparison, interleave
from edgekit.records import SCHEMA_VERSION, OutputParity
from edgekit.verify.parity import compare_outputs

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """Two artifacts that take the same inputs.

    Attributes:
        first, second: Their paths.
        inputs: ``.npz`` with ``input_<i>``; None: generated inputs.
        rounds, runs_per_round, warmup_runs, num_threads: How they are timed.
    """

    first: Path
    second: Path
    inputs: Path | None = None
    rounds: int = 10
    runs_per_round: int = 10
    warmup_runs: int = 10
    num_threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """What running both told."""

    parity: tuple[OutputParity, ...]
    timing: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactComparison:
    """Two artifacts side by side. ``runs`` is None where this machine cannot run one of them."""

    schema_version: int = SCHEMA_VERSION
    first: InspectReport
    second: InspectReport
    runs: RunComparison | None
    not_run: str | None


def compare_artifacts(request: CompareRequest) -> ArtifactComparison:
    """Compare two artifacts.

    Raises:
        ArtifactError: One is missing or unreadable.
        DataError: They do not take the same inputs.
        ToolError: A runtime failed.
    """
    first, second = inspect_artifact(request.first), inspect_artifact(request.second)
    backends = [format_of_path(str(path)).backends[0] for path in (request.first, request.second)]
    reason = next((text for backend in backends if (text := backend.not_here or backend.not_timed_here)), None)
    runs = None
    if reason is None:
        log = Path(tempfile.mkdtemp(prefix="edgekit-compare-")) / "compare.log"
        runs = run_child(
            "edgekit.pipeline.compare:compare_in_child",
            CompareRequest(
                first=request.first.absolute(),
                second=request.second.absolute(),
                inputs=request.inputs.absolute() if request.inputs else None,
                rounds=request.rounds,
                runs_per_round=request.runs_per_round,
                warmup_runs=request.warmup_runs,
                num_threads=request.num_threads,
            ),
            RunComparison,
            stage="compare",
            log=log,
            timeout_s=3600,
        )
    return ArtifactComparison(first=first, second=second, runs=runs, not_run=reason)


def compare_in_child(request: CompareRequest) -> RunComparison:
    """Run both on the same inputs: outputs first, then times, by turns."""
    with ExitStack() as stack:
        stack.enter_context(pinned(request.num_threads))
        first = stack.enter_context(_open(request.first, request.num_threads))
        second = stack.enter_context(_open(request.second, request.num_threads))
        inputs = _inputs(request, first)
        outputs = [session.run(_as_taken(session, inputs)) for session in (first, second)]
        executes = [session.prepare(_as_taken(session, inputs)) for session in (first, second)]
        timing = interleave(
            *_pair(executes),
            rounds=request.rounds,
            runs_per_round=request.runs_per_round,
            warmup_runs=request.warmup_runs,
        )
    if len(outputs[0]) != len(outputs[1]):
        raise DataError(
            f"expected two artifacts with as many outputs; received {len(outputs[0])} and {len(outputs[1])}"
        )
    names = [spec.name for spec in first.outputs]
    parity = compare_outputs(names, outputs[1], outputs[0], [None] * len(names), None)
    return RunComparison(parity=parity, timing=timing)


def _open(path: Path, num_threads: int) -> Session:
    spec = format_of_path(str(path))
    session: Session = load_entry(spec.open_session)(path, num_threads)
    return session


def _inputs(request: CompareRequest, session: Session) -> list[Array]:
    if request.inputs is not None:
        return list(first_sample(request.inputs, len(session.inputs)))
    return list(generated_inputs(session.inputs, seed=0))


def _as_taken(session: Session, inputs: list[Array]) -> list[Array]:
    """Cast integers to what this artifact declares: one format has int64 tokens where another has int32."""
    return [
        np.asarray(array).astype(spec.dtype) if np.asarray(array).dtype.kind in "iu" else array
        for spec, array in zip(session.inputs, inputs, strict=True)
    ]


def _pair(executes: list[Callable[[], None]]) -> tuple[Callable[[], None], Callable[[], None]]:
    first, second = executes
    return first, second
