"""Measure a session: loading, the first run, then as many timed runs as asked, with nothing else in the way.

The order is what makes figures comparable. Load once for nothing, so that the runtime's own libraries are there; load
with the file out of the page cache (``init_cold``); load with it in (``init``, the median of three loads); run
(``first``); warm up; run with a clock. Memory is followed from before the last load to the end of the warm-up, so that
timed runs are not watched.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session
from edgekit.process import emit
from edgekit.profile.loading import OpenSession, init_cold_ms, init_ms, timed_load, timed_open
from edgekit.profile.memory import PeakMemory, release_free_memory, resident_bytes
from edgekit.profile.page_cache import drop_from_page_cache
from edgekit.profile.statistics import NOISY_SPREAD, relative_spread, summarize
from edgekit.records import LatencyMs, MemoryBytes, RuntimeInfo

Array = NDArray[np.generic]

_NS_PER_MS = 1e6
_REPORT_EVERY_NS = 1_000_000_000  # rare enough that reporting disturbs no short run
WARM_LOADS = 3
"""Loads whose median is ``init``: one load alone is at the mercy of whatever else the machine does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured of one artifact.

    Attributes:
        notes: What a reader must know: a noisy machine, a load that could not be cold, how memory was followed.
    """

    runtime: RuntimeInfo
    latency_ms: LatencyMs
    memory_bytes: MemoryBytes
    notes: tuple[str, ...]


def measure(
    open_session: OpenSession,
    artifact: Path,
    feed: Callable[[Session], Sequence[Array]],
    *,
    num_threads: int,
    num_runs: int,
    warmup_runs: int,
) -> Measurement:
    """Load, warm up and time an artifact in this process.

    Args:
        open_session: Of the artifact's format.
        artifact: Its path.
        feed: Makes the inputs for a session.
        num_threads: Of the runtime.
        num_runs: Timed runs, at least 1.
        warmup_runs: Runs before them that count for nothing.

    Raises:
        ArtifactError: The artifact cannot be loaded.
        ToolError: The runtime failed.
    """
    with open_session(artifact, num_threads) as session:
        inputs = feed(session)
    cold = drop_from_page_cache(artifact)
    cold_load, *warm_loads = (timed_load(open_session, artifact, num_threads) for _ in range(WARM_LOADS))
    release_free_memory()
    with ExitStack() as stack:
        with PeakMemory() as memory:
            session, load = timed_open(open_session, artifact, num_threads)
            stack.enter_context(session)
            warm_loads.append(load)
            release_free_memory()
            init_bytes = resident_bytes()
            execute = session.prepare(inputs)
            (first_ms,) = time_runs(execute, 1)
            for _ in range(warmup_runs):
                execute()
        samples_ms = time_runs(execute, num_runs)
        runtime = session.runtime
    latency = summarize(
        samples_ms,
        init_ms=init_ms(warm_loads),
        first_ms=first_ms,
        init_cold_ms=init_cold_ms(cold_load, warm_loads) if cold else None,
    )
    return Measurement(
        runtime=runtime,
        latency_ms=latency,
        memory_bytes=MemoryBytes(init=max(init_bytes - memory.baseline, 0), peak=max(memory.peak - memory.baseline, 0)),
        notes=_notes(samples_ms, cold=cold, memory=memory),
    )


def time_runs(execute: Callable[[], None], num_runs: int) -> tuple[float, ...]:
    """Time each run with the monotonic clock, garbage collection off; milliseconds in the order of the runs."""
    clock = time.perf_counter_ns
    starts, ends = [0] * num_runs, [0] * num_runs
    with garbage_collection_off():
        reported = clock()
        for index in range(num_runs):
            starts[index] = clock()
            execute()
            ends[index] = clock()
            if ends[index] - reported > _REPORT_EVERY_NS:
                emit({"type": "progress", "stage": "profile", "phase": "run", "step": index + 1, "steps": num_runs})
                reported = clock()
    return tuple((end - start) / _NS_PER_MS for start, end in zip(starts, ends, strict=True))


@contextmanager
def garbage_collection_off() -> Iterator[None]:
    """Collect now, then not until the block ends: a collection inside a timed run would be counted as the model's."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _notes(samples_ms: Sequence[float], *, cold: bool, memory: PeakMemory) -> tuple[str, ...]:
    notes = []
    if memory.sampled:
        notes.append(f"memory was {memory.method}: a shorter peak would not be seen")
    spread = relative_spread(samples_ms)
    if spread > NOISY_SPREAD:
        notes.append(f"noisy: the runs spread by {spread:.0%} of their median; close other work and measure again")
    if not cold:
        notes.append("init_cold is not known: this system cannot drop a file from its page cache")
    return tuple(notes)
