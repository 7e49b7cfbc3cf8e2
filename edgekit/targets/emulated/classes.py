"""Classes of instruction of a whole run, and its loads and stores by the bytes that each moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.records import InstructionCounts
from edgekit.targets.emulated.attribution import group_totals
from edgekit.targets.emulated.counts import Counts
from edgekit.targets.emulated.decode import decode_words


def count_classes(counts: Counts) -> InstructionCounts:
    """Sum up what the counted region executed.

    Raises:
        UnsupportedError: A block holds an SVE instruction.
        MissingToolError: The decoder's library is not installed.
    """
    groups, load_bytes, store_bytes = group_totals(counts)
    words: Sequence[NDArray[np.uint32]] = counts.words or (np.zeros(0, dtype=np.uint32),)
    distinct, places = np.unique(np.concatenate(words), return_inverse=True)
    executed = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(
        executed, places.reshape(-1), np.repeat(counts.block_counts, counts.lengths.astype(np.int64)).astype(np.int64)
    )
    decoded = decode_words(distinct)
    return InstructionCounts(
        groups={group: count for group, count in groups.items() if count},
        load_bytes=load_bytes,
        store_bytes=store_bytes,
        loads_by_width=_by_width(decoded.load_bytes, executed),
        stores_by_width=_by_width(decoded.store_bytes, executed),
    )


def _by_width(moved: NDArray[np.uint8], executed: NDArray[np.int64]) -> dict[int, int]:
    return {int(width): int(executed[moved == width].sum()) for width in np.unique(moved) if width}
