"""The static latency model: exact counts times the cycles of each block, and a term for main memory's bandwidth.

Each block is scheduled by coresim as if it were looped on itself with all its data in L1: that is what the hot blocks
of kernels do, and it costs next to nothing, because only distinct blocks are scheduled, not executions. What it cannot
see are cache and translation misses, mispredicted branches and how one block runs into the next. The memory term stands
for the largest of these: a segment whose data do not stay in the last cache streams them, at the bandwidth of one core.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ToolError
from edgekit.targets.emulated.coresim import PlacedCore, core_arguments, run_coresim
from edgekit.targets.emulated.counts import Counts
from edgekit.targets.emulated.decode import decode_words, write_decode_table
from edgekit.targets.emulated.mnemonics import CLASSES
from edgekit.targets.emulated.place import CorePlace, CycleEstimate

_SECONDS: Final = 300.0
_VECTOR_STORES: Final = tuple(
    index for index, name in enumerate(CLASSES) if name.startswith("store_") and name not in ("store_x", "store_pair_x")
)


def estimate_static(
    counts: Counts,
    cores: Sequence[PlacedCore],
    *,
    coresim: Path,
    work_dir: Path,
    working_sets: Sequence[float] | None = None,
) -> tuple[CycleEstimate, ...]:
    """Estimate the counted region's cycles on each core.

    Args:
        counts: What was executed.
        cores: The cores, each at its place; all from one run, so they must execute the same kernels.
        coresim: The host program.
        work_dir: For its files; exists.
        working_sets: Distinct bytes that each segment reads and writes (weights and activations); None: not known, then
            the estimate has no memory term and is of data in L1.

    Returns:
        One estimate a core, in order.

    Raises:
        ToolError: coresim failed.
        ValueError: ``working_sets`` has another length than the counts have segments.
    """
    if working_sets is not None and len(working_sets) != counts.num_segments:
        raise ValueError(f"expected {counts.num_segments} working sets, one a segment, received {len(working_sets)}")
    block_cycles = _block_cycles(counts, cores, coresim, work_dir)
    touched = np.zeros(counts.num_segments) if working_sets is None else np.asarray(working_sets, dtype=np.float64)
    return tuple(_estimate(counts, placed, block_cycles[:, i], touched) for i, placed in enumerate(cores))


def stored_working_sets(counts: Counts) -> tuple[float, ...]:
    """Return about how many bytes each segment touches, where nothing but the counts is known.

    What vector instructions store is taken to be activations: written once, and read once by this segment or a later
    one. A program's constants cannot be told from its other loads and are not in it; a buffer that is written again and
    again counts each time.
    """
    stored = _vector_store_bytes(counts)
    touched = np.zeros(counts.num_segments)
    np.add.at(touched, counts.segments, 2.0 * counts.counts.astype(np.float64) * stored[counts.blocks])
    return tuple(touched.tolist())


def _vector_store_bytes(counts: Counts) -> NDArray[np.float64]:
    """``f64[blocks]``: bytes that one execution stores from vector registers."""
    stored = np.zeros(len(counts.words))
    if counts.words:
        words, places = np.unique(np.concatenate(counts.words), return_inverse=True)
        decoded = decode_words(words)
        each = np.where(np.isin(decoded.classes, _VECTOR_STORES), decoded.store_bytes, 0)
        block = np.repeat(np.arange(len(counts.words)), counts.lengths.astype(np.int64))
        np.add.at(stored, block, each[places.reshape(-1)])
    return stored


def _block_cycles(counts: Counts, cores: Sequence[PlacedCore], coresim: Path, work_dir: Path) -> NDArray[np.float64]:
    """``f64[blocks, cores]``: steady-state cycles of one execution."""
    table, blocks, output = (work_dir / name for name in ("words.decode", "blocks.bin", "cycles.txt"))
    write_decode_table(np.concatenate(counts.words), table)
    parts = [struct.pack("<I", len(counts.words))]
    for words in counts.words:
        parts += [struct.pack("<I", len(words)), words.astype("<u4").tobytes()]
    blocks.write_bytes(b"".join(parts))
    arguments = ["blocks", "--decode", str(table), "--blocks", str(blocks), "--output", str(output)]
    run_coresim(coresim, [*arguments, *core_arguments(cores, work_dir)], seconds=_SECONDS)
    cycles = np.loadtxt(output, dtype=np.float64, ndmin=2)
    if cycles.shape != (len(counts.words), len(cores)):
        raise ToolError(f"The core simulator wrote cycles of shape {cycles.shape} for {len(counts.words)} blocks")
    return cycles


def _estimate(
    counts: Counts, placed: PlacedCore, block_cycles: NDArray[np.float64], touched: NDArray[np.float64]
) -> CycleEstimate:
    busy = np.zeros(counts.num_segments)
    np.add.at(busy, counts.segments, counts.counts.astype(np.float64) * block_cycles[counts.blocks])
    streamed = _streamed_bytes(touched, placed.place)
    waiting = streamed / placed.place.memory_bytes_per_cycle
    # An out-of-order core computes while lines arrive; an in-order one overlaps little of the two.
    cycles = busy + waiting if placed.core.pipeline.in_order else np.maximum(busy, waiting)
    return CycleEstimate(
        model="static",
        core=placed.core.name,
        cycles=float(cycles.sum()),
        cycles_by_segment=tuple(cycles.tolist()),
        memory_read_bytes=float(streamed.sum()),
        memory_write_bytes=0.0,
        memory_bytes_by_segment=tuple(streamed.tolist()),
    )


def _streamed_bytes(touched: NDArray[np.float64], place: CorePlace) -> NDArray[np.float64]:
    """Bytes that each segment has to bring from memory: all it touches, unless the model stays in the last cache."""
    last_cache = 1024.0 * max(place.l1d_kib, place.l2_kib or 0, place.l3_kib or 0)
    return touched if float(touched.sum()) > last_cache else np.zeros_like(touched)
