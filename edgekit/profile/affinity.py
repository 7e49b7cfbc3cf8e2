"""Pin a process to cores, and say to which: a thread that wanders pays for cold caches at every move."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekit.errors import TargetError

_CPUS = Path("/sys/devices/system/cpu")


def available_cpus() -> tuple[int, ...]:
    """Return the cores that this process may use; all of them where the system cannot say."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def choose_cpus(num_threads: int, available: Sequence[int]) -> tuple[int, ...]:
    """Choose cores for so many threads: the fastest kind first, one thread a physical core, high numbers first.

    Core 0 serves most interrupts, so it comes last among its like.

    Args:
        num_threads: How many threads will compute.
        available: Cores to choose from.

    Returns:
        As many cores as threads, or all where there are fewer; ascending.
    """
    ranked = sorted(available, key=lambda cpu: (_is_second_sibling(cpu, available), -_capacity(cpu), -cpu))
    return tuple(sorted(ranked[:num_threads]))


@contextlib.contextmanager
def pinned(num_threads: int, cpus: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
    """Pin this process, and the threads that it starts from now on, for the time of the block.

    Args:
        num_threads: How many threads will compute.
        cpus: Cores given by the user; None: chosen.

    Yields:
        The cores; empty where the system cannot pin (macOS).

    Raises:
        TargetError: A given core does not exist or is not for this process.
    """
    available = available_cpus()
    missing = sorted(set(cpus or ()) - set(available))
    if missing:
        raise TargetError(f"cpus: this process may not use cores {missing}. Allowed: {list(available)}.")
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    chosen = tuple(sorted(cpus)) if cpus else choose_cpus(num_threads, available)
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, available)


def _read_int(path: Path, default: int) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return default


def _capacity(cpu: int) -> int:
    """Relative speed of a core where kinds differ (Arm big.LITTLE), 0 where the kernel does not say."""
    return _read_int(_CPUS / f"cpu{cpu}" / "cpu_capacity", 0)


def _is_second_sibling(cpu: int, available: Sequence[int]) -> bool:
    """Whether a higher-ranked core shares its execution units (simultaneous multithreading)."""
    topology = _CPUS / f"cpu{cpu}" / "topology"
    core, package = _read_int(topology / "core_id", cpu), _read_int(topology / "physical_package_id", 0)
    return any(
        other > cpu
        and _read_int(_CPUS / f"cpu{other}" / "topology" / "core_id", other) == core
        and _read_int(_CPUS / f"cpu{other}" / "topology" / "physical_package_id", 0) == package
        for other in available
    )
