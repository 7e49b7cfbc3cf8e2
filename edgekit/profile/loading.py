"""Time how long an artifact takes to load, apart from what edgekit itself reads of the file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.contracts import Session

OpenSession = Callable[[Path, int], Session]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load.

    Attributes:
        wall_ms: Opening the session, with what edgekit reads of the file.
        runtime_ms: What the runtime took of it.
    """

    wall_ms: float
    runtime_ms: float


def timed_open(open_session: OpenSession, artifact: Path, num_threads: int) -> tuple[Session, Load]:
    """Open a session and time it."""
    start = time.perf_counter()
    session = open_session(artifact, num_threads)
    wall_ms = (time.perf_counter() - start) * 1e3
    return session, Load(wall_ms=wall_ms, runtime_ms=wall_ms if session.load_ms is None else session.load_ms)


def timed_load(open_session: OpenSession, artifact: Path, num_threads: int) -> Load:
    """Open a session, time it, close it."""
    session, load = timed_open(open_session, artifact, num_threads)
    session.close()
    return load


def init_ms(warm: Sequence[Load]) -> float:
    """Return the median time of the runtime over warm loads.

    Example:
        >>> init_ms([Load(wall_ms=9.0, runtime_ms=2.0), Load(wall_ms=9.0, runtime_ms=4.0)])
        3.0
    """
    return statistics.median(load.runtime_ms for load in warm)


def init_cold_ms(cold: Load, warm: Sequence[Load]) -> float:
    """Return the time of a cold load, less what edgekit's own reading takes when the file is cached.

    Whoever reads the file first waits for the disk; if that is edgekit, the runtime's own time shows nothing of it.

    Example:
        >>> init_cold_ms(Load(wall_ms=20.0, runtime_ms=2.0), [Load(wall_ms=9.0, runtime_ms=2.0)])
        13.0
    """
    own_ms = statistics.median(load.wall_ms - load.runtime_ms for load in warm)
    return max(cold.wall_ms - own_ms, cold.runtime_ms)
