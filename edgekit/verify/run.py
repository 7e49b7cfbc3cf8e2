"""Run an artifact on its runtime with the verification samples, and compare what it says with the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, load_entry
from edgekit.process import emit
from edgekit.records import Parity, Program
from edgekit.verify.accuracy import top1_accuracy
from edgekit.verify.half_precision import blame
from edgekit.verify.judge import Distances, broken, check_output_names, judge
from edgekit.verify.parity import compare_outputs, incomparable, sqnr_db
from edgekit.verify.reference import Reference, load_reference
from edgekit.verify.requests import VerifyRequest, VerifyResult

Array = NDArray[np.generic]

BATCH = 16
"""Samples a run of an artifact with a free batch; the first run takes one sample, so that two sizes are tried."""

REPEATABLE_DB = 90.0
"""The first sample, run again at the end, must give the same output up to the limit that fp32 is held to."""


def verify_artifact(request: VerifyRequest) -> VerifyResult:
    """Run, compare, judge. An artifact that disagrees is a result, not an error.

    Raises:
        ArtifactError: The reference or the artifact cannot be read.
        RecipeError: ``verify.outputs`` names an output that the model does not have.
        ToolError: The runtime failed.
    """
    names = [spec.name for spec in request.program.outputs]
    check_output_names(request.verify, names)
    reference = load_reference(request.program.reference)
    with _open(request) as session:
        outputs, unstable = _run_all(session, reference, dynamic_batch=request.dynamic_batch)
        runtime = session.runtime
    if request.outputs is not None:
        request.outputs.parent.mkdir(parents=True, exist_ok=True)
        np.savez(request.outputs, **{f"output_{i}": output for i, output in enumerate(outputs)})  # type: ignore[arg-type]
    parity = blame(_parity(request, reference, names, outputs, unstable), request.half_precision)
    return VerifyResult(parity=parity, runtime=runtime)


def _open(request: VerifyRequest) -> Session:
    entry = load_entry(request.open_session)
    chosen = () if request.compute is None else (request.compute,)
    session: Session = entry(request.artifact, request.num_threads, *chosen)
    return session


def _batches(total: int, *, dynamic_batch: bool) -> Iterator[slice]:
    start = 0
    while start < total:
        stop = start + (BATCH if dynamic_batch and start else 1)
        yield slice(start, min(stop, total))
        start = stop


def _run_all(session: Session, reference: Reference, *, dynamic_batch: bool) -> tuple[tuple[Array, ...], str | None]:
    """Return each output with the samples in axis 0, and why the artifact is not repeatable (None: it is)."""
    collected: list[tuple[Array, ...]] = []
    for part in _batches(len(reference), dynamic_batch=dynamic_batch):
        collected.append(tuple(np.array(out) for out in session.run([array[part] for array in reference.inputs])))
        if part.stop % 64 == 0:
            emit({"type": "progress", "stage": "verify", "phase": "run", "step": part.stop, "steps": len(reference)})
    again = session.run([array[:1] for array in reference.inputs])
    outputs = tuple(np.concatenate([np.atleast_1d(out) for out in column]) for column in zip(*collected, strict=True))
    return outputs, _repeatability_problem(collected[0], again)


def _repeatability_problem(first: tuple[Array, ...], again: tuple[Array, ...]) -> str | None:
    """Catch a runtime that carries state from one inference to the next."""
    for index, (before, after) in enumerate(zip(first, again, strict=True)):
        a, b = before.astype(np.float64), after.astype(np.float64)
        if np.isfinite(a).all() and np.isfinite(b).all() and sqnr_db(b, a) < REPEATABLE_DB:
            return (
                f"output {index}: the first sample, run again after the others, gives another result "
                f"({sqnr_db(b, a):.1f} dB): the artifact keeps state between runs"
            )
    return None


def _parity(
    request: VerifyRequest, reference: Reference, names: list[str], outputs: tuple[Array, ...], unstable: str | None
) -> Parity:
    problem = incomparable(names, outputs, reference.source) or incomparable(names, outputs, reference.program)
    if problem is not None or unstable is not None:
        return broken("; ".join(filter(None, (problem, unstable))), len(reference))
    program = request.program
    accuracy, source_accuracy = _accuracies(program, reference, outputs)
    distances = Distances(
        samples=len(reference),
        versus_source=compare_outputs(names, outputs, reference.source, program.output_steps, program.task),
        versus_program=compare_outputs(names, outputs, reference.program, program.output_steps, program.task),
        program_versus_source=compare_outputs(
            names, reference.program, reference.source, program.output_steps, program.task
        ),
        accuracy=accuracy,
        source_accuracy=source_accuracy,
    )
    return judge(distances, request.verify, precision=request.precision, program_precision=program.precision)


def _accuracies(
    program: Program, reference: Reference, outputs: tuple[Array, ...]
) -> tuple[float | None, float | None]:
    """Accuracy of the artifact and of the source, both on these very samples."""
    if program.task != "classification" or reference.labels is None:
        return None, None
    return top1_accuracy(outputs[0], reference.labels), top1_accuracy(reference.source[0], reference.labels)
