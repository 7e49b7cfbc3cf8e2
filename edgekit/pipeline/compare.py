"""Two artifacts, or a program and an artifact, side by side.

What each holds, how far their outputs lie apart, which is faster (by turns), and, where the format shows it, how far
apart the results of their operations lie.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, Tracer, load_entry
from edgekit.errors import DataError
from edgekit.formats import format_of_path, format_spec
from edgekit.pipeline.inspect import InspectReport, inspect_artifact
from edgekit.pipeline.operands import Operand, tracing_format
from edgekit.process import run_child
from edgekit.profile.affinity import pinned
from edgekit.profile.feed import generated_inputs, samples_of
from edgekit.profile.interleave import Comparison, interleave
from edgekit.records import SCHEMA_VERSION, Compute, OutputParity
from edgekit.store.atomic import digest_path, size_bytes
from edgekit.verify.operators import OperatorComparison, compare_operators
from edgekit.verify.parity import compare_outputs

Array = NDArray[np.generic]

SAMPLES = 4
"""Samples that operations are compared on, where there are as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """Two things that take the same inputs.

    Attributes:
        first, second: Artifacts; the first may be a program (``.pt2``).
        inputs: ``.npz`` with ``input_<i>``; None: the samples of their build, else generated inputs.
        operators: Compare what every operation gives.
        compute: The arithmetic that both are evaluated in; None: as the artifacts say.
        rounds, runs_per_round, warmup_runs, num_threads: How they are timed.
    """

    first: Operand
    second: Operand
    inputs: Path | None = None
    operators: bool = False
    compute: Compute | None = None
    rounds: int = 10
    runs_per_round: int = 10
    warmup_runs: int = 10
    num_threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFacts:
    """A program as one side of a comparison."""

    path: Path
    sha256: str
    size_bytes: int
    format: Literal["program"] = "program"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """What running both told.

    Attributes:
        parity: Distance of each output of the second from the first's.
        timing: By turns; None where a time would mean nothing.
        operators: Of the second beside the first's; None where nobody asked.
    """

    parity: tuple[OutputParity, ...]
    timing: Comparison | None
    operators: OperatorComparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactComparison:
    """Two things side by side.

    Attributes:
        first, second: What they hold.
        runs: None where this machine cannot run one of them.
        not_run: Why.
        not_timed: Why there are no times although both ran.
    """

    schema_version: int = SCHEMA_VERSION
    first: InspectReport | ProgramFacts
    second: InspectReport | ProgramFacts
    runs: RunComparison | None
    not_run: str | None
    not_timed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the child does.

    Attributes:
        request: With absolute paths, the inputs settled.
        traced_by: The format that shows what lies between; None: both are opened as sessions.
        timed: Whether they are timed.
    """

    request: CompareRequest
    traced_by: str | None
    timed: bool


def compare_artifacts(request: CompareRequest) -> ArtifactComparison:
    """Compare two artifacts, or a program and an artifact.

    Raises:
        ArtifactError: One is missing or unreadable.
        DataError: They do not take the same inputs.
        UnsupportedError: One does not show what lies between its inputs and outputs, where that was asked for.
        ToolError: A runtime failed.
    """
    sides = (request.first, request.second)
    inside = request.operators or request.compute is not None or any(side.is_program for side in sides)
    traced_by = tracing_format(*sides) if inside else None
    first, second = (_facts(side) for side in sides)
    not_run = None if inside else _reason(sides, "not_here")
    not_timed = _INSIDE if inside else _reason(sides, "not_timed_here")
    runs = None
    if not_run is None:
        job = _Job(request=_settled(request), traced_by=traced_by, timed=not_timed is None)
        log = Path(tempfile.mkdtemp(prefix="edgekit-compare-")) / "compare.log"
        entry = "edgekit.pipeline.compare:compare_in_child"
        runs = run_child(entry, job, RunComparison, stage="compare", log=log, timeout_s=3600)
    return ArtifactComparison(
        first=first, second=second, runs=runs, not_run=not_run, not_timed=None if not_run else not_timed
    )


def comparison_row(facts: InspectReport | ProgramFacts) -> tuple[str, str, int, int | None, float | None]:
    """Return what a table says of one side: path, format, size in bytes, operators, share that the delegate takes."""
    if isinstance(facts, ProgramFacts):
        return str(facts.path), facts.format, facts.size_bytes, None, None
    delegated = None if facts.coverage is None else facts.coverage.operators
    return str(facts.path), facts.format, facts.size_bytes, len(facts.operators), delegated


_INSIDE = "what lies between inputs and outputs is evaluated, not run on the artifact's runtime"


def _facts(side: Operand) -> InspectReport | ProgramFacts:
    if side.is_program:
        return ProgramFacts(path=side.path, sha256=digest_path(side.path), size_bytes=size_bytes(side.path))
    return inspect_artifact(side.path)


def _reason(sides: Sequence[Operand], kind: Literal["not_here", "not_timed_here"]) -> str | None:
    backends = (format_of_path(str(side.path)).backends[0] for side in sides)
    reasons = (backend.not_here if kind == "not_here" else backend.not_timed_here for backend in backends)
    return next(filter(None, reasons), None)


def _settled(request: CompareRequest) -> CompareRequest:
    inputs = request.inputs or request.first.samples or request.second.samples
    return CompareRequest(
        first=Operand(path=request.first.path.absolute()),
        second=Operand(path=request.second.path.absolute()),
        inputs=inputs.absolute() if inputs else None,
        operators=request.operators,
        compute=request.compute,
        rounds=request.rounds,
        runs_per_round=request.runs_per_round,
        warmup_runs=request.warmup_runs,
        num_threads=request.num_threads,
    )


def compare_in_child(job: _Job) -> RunComparison:
    """Run both on the same inputs: outputs first, then what was asked for besides."""
    return _compare_inside(job) if job.traced_by is not None else _compare_sessions(job)


def _compare_inside(job: _Job) -> RunComparison:
    request = job.request
    first, second = (_tracer(job, side) for side in (request.first, request.second))
    samples = _samples(request, first)
    fed = [(_as_taken(first, sample), _as_taken(second, sample)) for sample in samples]
    named = second if request.first.is_program else first
    parity = _parity(named, [first.run(one) for one, _ in fed], [second.run(other) for _, other in fed])
    operators = compare_operators(first, second, fed) if request.operators else None
    return RunComparison(parity=parity, timing=None, operators=operators)


def _tracer(job: _Job, side: Operand) -> Tracer:
    spec = format_spec(job.traced_by or "")
    if side.is_program:
        return load_entry(spec.open_program_trace or "")(side.path)  # type: ignore[no-any-return]
    return load_entry(spec.open_trace or "")(side.path, job.request.compute or "declared")  # type: ignore[no-any-return]


def _compare_sessions(job: _Job) -> RunComparison:
    request = job.request
    with ExitStack() as stack:
        stack.enter_context(pinned(request.num_threads))
        first = stack.enter_context(_open(request.first.path, request.num_threads))
        second = stack.enter_context(_open(request.second.path, request.num_threads))
        inputs = _samples(request, first)[0]
        outputs = [session.run(_as_taken(session, inputs)) for session in (first, second)]
        parity = _parity(first, outputs[:1], outputs[1:])
        timing = None
        if job.timed:
            executes = [session.prepare(_as_taken(session, inputs)) for session in (first, second)]
            timing = interleave(
                *_pair(executes),
                rounds=request.rounds,
                runs_per_round=request.runs_per_round,
                warmup_runs=request.warmup_runs,
            )
    return RunComparison(parity=parity, timing=timing)


def _parity(
    named: Session | Tracer, expected: Sequence[tuple[Array, ...]], found: Sequence[tuple[Array, ...]]
) -> tuple[OutputParity, ...]:
    """Compare outputs of several runs, one tuple each, called as ``named`` calls them."""
    if len(expected[0]) != len(found[0]):
        raise DataError(f"expected two artifacts with as many outputs; received {len(expected[0])} and {len(found[0])}")
    names = [spec.name for spec in named.outputs]
    one, other = ([np.stack(runs) for runs in zip(*outputs, strict=True)] for outputs in (found, expected))
    return compare_outputs(names, one, other, [None] * len(names), None)


def _open(path: Path, num_threads: int) -> Session:
    spec = format_of_path(str(path))
    session: Session = load_entry(spec.open_session)(path, num_threads)
    return session


def _samples(request: CompareRequest, taker: Session | Tracer) -> list[list[Array]]:
    """Return the inputs of some runs."""
    if request.inputs is not None:
        return samples_of(request.inputs, len(taker.inputs))[:SAMPLES]
    return [generated_inputs(taker.inputs, seed=0)]


def _as_taken(taker: Session | Tracer, inputs: list[Array]) -> list[Array]:
    """Cast integers to what this artifact declares: one format has int64 tokens where another has int32."""
    if len(inputs) != len(taker.inputs):
        raise DataError(f"expected two that take as many inputs; received {len(inputs)} and {len(taker.inputs)}")
    return [
        np.asarray(array).astype(spec.dtype) if np.asarray(array).dtype.kind in "iu" else array
        for spec, array in zip(taker.inputs, inputs, strict=True)
    ]


def _pair(executes: list[Callable[[], None]]) -> tuple[Callable[[], None], Callable[[], None]]:
    first, second = executes
    return first, second
