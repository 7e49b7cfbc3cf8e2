"""Where a core sits, and what a model says of the time there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.targets.emulated.spec import Cluster, EmulatedDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePlace:
    """A core on a device: what its table leaves to the chip and the board.

    Attributes:
        clock_mhz: The core's clock.
        l1d_kib: First-level data cache.
        l2_kib: Second level; None: there is none.
        l3_kib: Third level; None: there is none.
        memory_bandwidth_gb_s: What one core can stream, 10^9 bytes a second.
        memory_latency_ns: Of a load that misses every cache.
    """

    clock_mhz: float
    l1d_kib: int
    l2_kib: int | None
    l3_kib: int | None
    memory_bandwidth_gb_s: float
    memory_latency_ns: float

    @property
    def cycles_per_ms(self) -> float:
        """Cycles of the core in a millisecond."""
        return self.clock_mhz * 1000

    @property
    def memory_bytes_per_cycle(self) -> float:
        """Bytes from memory in a cycle of the core."""
        return self.memory_bandwidth_gb_s * 1000 / self.clock_mhz


def place_of(device: EmulatedDevice, cluster: Cluster | None = None) -> CorePlace:
    """Return the place of a cluster's cores on a device; None: the primary cluster.

    A cache that the whole chip shares between processor and memory counts as the third level where there is no other.
    """
    cluster = cluster or device.primary_cluster
    return CorePlace(
        clock_mhz=cluster.clock_mhz,
        l1d_kib=cluster.l1d_kib,
        l2_kib=cluster.l2_kib,
        l3_kib=device.l3_kib or device.system_cache_kib,
        memory_bandwidth_gb_s=device.memory.bandwidth_gb_s,
        memory_latency_ns=device.memory.latency_ns,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleEstimate:
    """Cycles that a model gives for the counted region.

    Attributes:
        model: ``static`` or ``trace``.
        core: Name of the core table.
        cycles: In all.
        cycles_by_segment: For each segment of the counts, in order.
        memory_read_bytes: Read from main memory.
        memory_write_bytes: Written to main memory.
        memory_bytes_by_segment: Read and written, for each segment.
        warm: Whether the estimate is of a run whose caches an identical run before it filled.
    """

    model: str
    core: str
    cycles: float
    cycles_by_segment: tuple[float, ...]
    memory_read_bytes: float
    memory_write_bytes: float
    memory_bytes_by_segment: tuple[float, ...]
    warm: bool = True

    def milliseconds(self, place: CorePlace) -> float:
        """The time at the place's clock."""
        return self.cycles / place.cycles_per_ms
