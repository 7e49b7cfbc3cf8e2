"""Turn a counted run into cycles of a core at its place, in all and for each operator."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.store.cache import stage_key
from edgekit.targets.emulated.artifact_run import GuestJob, run_on_guest, run_on_host
from edgekit.targets.emulated.calibration import Layer
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.counted import CountedRun, runs_cache
from edgekit.targets.emulated.counts import Counts, read_counts
from edgekit.targets.emulated.place import CycleEstimate
from edgekit.targets.emulated.static_model import estimate_static
from edgekit.targets.emulated.trace_model import prepare_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """What a model gives for one inference.

    Attributes:
        total: Cycles in all.
        by_operator: Of each operator of the run, in order.
        notes: What a reader must know of them.
    """

    total: float
    by_operator: tuple[float, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedRun:
    """A run whose cycles are wanted on a core at its place.

    Attributes:
        run: Its counts.
        placed: The core and the place.
        estimator: Digest of the model, the core and the place.
    """

    run: CountedRun
    placed: PlacedCore
    estimator: str


def model_cycles(job: GuestJob, run: CountedRun, placed: PlacedCore, layer: Layer, estimator: str) -> Cycles:
    """Model a run on a core at its place; kept, so that asking again costs nothing.

    Args:
        job: What was run.
        run: Its counts.
        placed: The core and the place.
        layer: ``static`` or ``trace``; the trace runs the guest once more.
        estimator: Digest of the model, the core and the place.

    Raises:
        ToolError: The core simulator or the guest failed.
    """
    reads = _reads(run, layer, estimator)
    cache, key = runs_cache(), stage_key("cycles", reads)
    found = cache.find("cycles", key, Cycles)
    if found is not None:
        return found
    with cache.producing(key, anew=False) as workspace:
        if layer == "static":
            made = _static(job, run, placed, workspace.scratch)
        else:
            (estimate,) = _trace(job, run, [placed], workspace.scratch)
            made = _traced_cycles(job, run, placed, estimate, workspace.scratch)
        return cache.commit("cycles", key, made, reads)


def trace_together(job: GuestJob, wanted: Sequence[TracedRun]) -> None:
    """Trace the guest once for several cores, and keep the cycles where `model_cycles` finds them.

    Args:
        job: What the guest is started with: of any of the runs.
        wanted: Runs of the job's artifact that executed the same kernels (`Counts.fingerprint`), each on its core.

    Raises:
        ToolError: The core simulator or the guest failed.
    """
    cache = runs_cache()
    keys = [stage_key("cycles", _reads(one.run, "trace", one.estimator)) for one in wanted]
    missing = [(key, one) for key, one in zip(keys, wanted, strict=True) if cache.find("cycles", key, Cycles) is None]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-trace-") as folder:
        work = Path(folder)
        estimates = _trace(job, missing[0][1].run, [one.placed for _, one in missing], work)
        for (key, one), estimate in zip(missing, estimates, strict=True):
            with cache.producing(key, anew=False):
                made = _traced_cycles(job, one.run, one.placed, estimate, work)
                cache.commit("cycles", key, made, _reads(one.run, "trace", one.estimator))


def _reads(run: CountedRun, layer: Layer, estimator: str) -> dict[str, Any]:
    return {"run": run.key, "estimator": estimator, "layer": layer}


def _static(job: GuestJob, run: CountedRun, placed: PlacedCore, work: Path) -> Cycles:
    counts = read_counts(run.operators_file)
    estimate = _static_estimate(job, counts, placed, _working_sets(run, counts), work)
    by_operator = _by_operator(run, estimate)
    if run.counts_file == run.operators_file:
        return Cycles(total=estimate.cycles, by_operator=by_operator)
    # The other run also executed a profiler, so its sum is not that of an inference.
    plain = read_counts(run.counts_file)
    touched = [sum(one.touched_bytes for one in run.operators), *([0.0] * (plain.num_segments - 1))]
    return Cycles(total=_static_estimate(job, plain, placed, touched, work).cycles, by_operator=by_operator)


def _static_estimate(
    job: GuestJob, counts: Counts, placed: PlacedCore, working_sets: Sequence[float], work: Path
) -> CycleEstimate:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        (estimate,) = estimate_static(
            counts, [placed], coresim=job.tools.coresim, work_dir=Path(folder), working_sets=working_sets
        )
    return estimate


def _working_sets(run: CountedRun, counts: Counts) -> list[float]:
    """Return the bytes that each segment touches: an operator's, spread over its segments."""
    touched = np.zeros(counts.num_segments)
    for one in run.operators:
        for segment in one.segments:
            touched[segment] = one.touched_bytes / len(one.segments)
    found: list[float] = touched.tolist()
    return found


def _by_operator(run: CountedRun, estimate: CycleEstimate) -> tuple[float, ...]:
    cycles = estimate.cycles_by_segment
    return tuple(sum(cycles[segment] for segment in one.segments) for one in run.operators)


def _trace(job: GuestJob, run: CountedRun, cores: Sequence[PlacedCore], work: Path) -> tuple[CycleEstimate, ...]:
    """Run the guest once more, streaming into the core simulator."""
    host = run_on_host(job.request)
    folder = work / "simulation"
    folder.mkdir(exist_ok=True)
    model = prepare_trace(read_counts(run.counts_file), cores, coresim=job.tools.coresim, work_dir=folder)
    run_on_guest(job, host, work / "trace", samples=host.samples[:1], operators=False, trace=model.sink)
    return model.read()


def _traced_cycles(job: GuestJob, run: CountedRun, placed: PlacedCore, estimate: CycleEstimate, work: Path) -> Cycles:
    if run.counts_file == run.operators_file:
        return Cycles(total=estimate.cycles, by_operator=_by_operator(run, estimate))
    static = _static(job, run, placed, work)
    scale = estimate.cycles / (static.total or 1.0)
    note = "times of single operators are those of the static model, scaled to the trace's time of the whole inference"
    return Cycles(
        total=estimate.cycles, by_operator=tuple(cycles * scale for cycles in static.by_operator), notes=(note,)
    )
