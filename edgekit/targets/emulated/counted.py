"""Count one inference of an artifact on the guest. Kept: devices with the same core share one run.

A run is decided by the artifact, its inputs, the tools and the persona, and by nothing else: neither the device's clock
and memory nor the model that turns counts into time. Its folder holds the count files, which a model of any core at any
place reads again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.contracts import load_entry
from edgekit.errors import ArtifactError
from edgekit.records import DeviceParity, GuestMemoryBytes, InstructionCounts, RuntimeInfo
from edgekit.store.atomic import digest_path
from edgekit.store.cache import StageCache, Workspace, cache_root, stage_key
from edgekit.targets.emulated.artifact_run import (
    SAMPLES,
    WARMUP,
    GuestJob,
    GuestSide,
    HostSide,
    run_on_guest,
    run_on_host,
)
from edgekit.targets.emulated.attribution import attribute
from edgekit.targets.emulated.classes import count_classes
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.layers import CountedOperator, counted_operators
from edgekit.targets.emulated.runner import RunnerOperator
from edgekit.targets.emulated.symbols import read_symbols
from edgekit.verify.device_parity import Sides, compare_sides, parity_notes, stack_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRun:
    """What one run told, without any time.

    Attributes:
        key: Digest of what decides the run.
        counts_file: The plugin's counts of the inference.
        operators_file: Counts whose segments are the operators; another file than ``counts_file`` where telling the
            operators apart costs instructions of its own.
    """

    key: str
    runtime: RuntimeInfo
    counts_file: Path
    operators_file: Path
    instructions: int
    load_instructions: int
    counts: InstructionCounts
    memory_bytes: GuestMemoryBytes
    operators: tuple[CountedOperator, ...]
    parity: DeviceParity
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedOperators:
    """What a runtime said that it runs, in the order of execution."""

    operators: tuple[RunnerOperator, ...]


def runs_cache() -> StageCache:
    """Return where runs and their traces are kept."""
    return StageCache(cache_root() / "emulated" / "runs")


def counted_run(job: GuestJob, *, anew: bool = False) -> CountedRun:
    """Return the run of an artifact behind a persona, from the cache where it was made before.

    Args:
        job: What to run.
        anew: Run it again, whatever the cache holds.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        UnsupportedError: The runtime lacks an operator, or has no runner here.
        ToolError: The guest crashed, looped, ran out of memory, or counted nothing.
    """
    reads = _reads(job)
    cache, key = runs_cache(), stage_key("run", reads)
    found = None if anew else cache.find("run", key, CountedRun)
    if found is not None:
        return found
    with cache.producing(key, anew=False) as workspace:
        found = None if anew else cache.find("run", key, CountedRun)
        if found is not None:  # another profile made it while this one waited
            return found
        return cache.commit("run", key, _make(job, workspace, key), reads)


def _reads(job: GuestJob) -> dict[str, Any]:
    request = job.request
    if not request.artifact.exists():
        raise ArtifactError(f"expected an artifact at {request.artifact}; there is none")
    return {
        "artifact": digest_path(request.artifact),
        "format": request.format,
        "inputs": digest_path(request.reference) if request.reference is not None else request.config.seed,
        "tools": job.tools.key,
        "persona": job.persona.key,
        "warmup": WARMUP,
        "samples": SAMPLES,
    }


def _make(job: GuestJob, workspace: Workspace, key: str) -> CountedRun:
    """Run on this machine, run on the guest, compare, attribute."""
    host = run_on_host(job.request)
    listed = _kept_list(job)
    made = _count(job, host, workspace, listed)
    operators, operators_file, notes = _operators(job, host, made, workspace)
    if listed is not None and notes:  # this processor runs other operators: it has to list its own
        made = _count(job, host, workspace, None)
        operators, operators_file, notes = _operators(job, host, made, workspace)
    guest_outputs, host_outputs = stack_samples(made.result.outputs), stack_samples(host.results)
    parity = compare_sides(host.outputs, Sides(device=guest_outputs, host=host_outputs, **host.references))
    counts_file = _keep(made, workspace)
    return CountedRun(
        key=key,
        runtime=replace(host.runtime, version=made.result.version),
        counts_file=counts_file,
        operators_file=operators_file or counts_file,
        instructions=made.counts.steady_instructions,
        load_instructions=made.counts.load_instructions,
        counts=count_classes(made.counts),
        memory_bytes=GuestMemoryBytes(
            init=None,
            peak=made.result.heap_peak_bytes,
            arena=made.result.arena_bytes,
            resident=made.result.peak_rss_bytes,
        ),
        operators=operators,
        parity=parity,
        notes=(*_run_notes(made), *notes, *parity_notes(parity, "the phone")),
    )


def _count(job: GuestJob, host: HostSide, workspace: Workspace, listed: ListedOperators | None) -> GuestSide:
    """Run and count; operators that no other run has listed yet are listed, and kept for the next processor."""
    made = run_on_guest(job, host, workspace.scratch / "count", samples=host.samples, operators=listed is None)
    if listed is not None:
        return replace(made, result=replace(made.result, operators=listed.operators))
    reads = _list_reads(job)
    cache, key = runs_cache(), stage_key("operators", reads)
    with cache.producing(key, anew=False):
        cache.commit("operators", key, ListedOperators(operators=made.result.operators), reads)
    return made


def _kept_list(job: GuestJob) -> ListedOperators | None:
    return runs_cache().find("operators", stage_key("operators", _list_reads(job)), ListedOperators)


def _list_reads(job: GuestJob) -> dict[str, Any]:
    """Return what decides which operators a runtime makes of an artifact; kernels within them may differ by core."""
    return {
        "artifact": digest_path(job.request.artifact),
        "format": job.request.format,
        "tools": job.tools.key,
        "features": load_core(job.persona.core).features,
    }


def _keep(made: GuestSide, workspace: Workspace) -> Path:
    kept = workspace.out / f"{made.file.parent.name}.bin"
    shutil.copyfile(made.file, kept)
    return kept


def _operators(
    job: GuestJob, host: HostSide, made: GuestSide, workspace: Workspace
) -> tuple[tuple[CountedOperator, ...], Path | None, tuple[str, ...]]:
    """Return the operators, another file of counts where it took another run, and what could not be told of them."""
    file = None
    if job.runtime == "onnxruntime":  # its nodes are told apart by its profiler, which executes something itself
        made = run_on_guest(job, host, workspace.scratch / "nodes", samples=host.samples[:1], profile_nodes=True)
        file = _keep(made, workspace)
    symbols = read_symbols(made.counts, twin_folders=job.twins)
    found = attribute(made.counts, symbols, made.result.operators, runtime=job.runtime, watches=made.watches)
    inspect = job.request.inspect
    layers = load_entry(inspect)(job.request.artifact).operators if inspect is not None else ()
    return counted_operators(found, layers, job.request.artifact, made.counts), file, found.notes


def _run_notes(made: GuestSide) -> Iterator[str]:
    if not made.counts.exact:
        yield "a thread was created in the counted inference, so its counts are not exact and may vary"
    elif made.counts.threads > 1:
        yield (
            f"{made.counts.threads} threads executed something in the counted inference; the counts are of the one "
            "that ran it"
        )
    if not made.result.outputs_repeat:
        yield "the counted inference gave another result than the first: the artifact keeps state between runs"
