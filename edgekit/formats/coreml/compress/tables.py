"""Tables of values, and the place of each weight in one: what coremltools' palettizer is given to call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.coreml.compress.kmeans import means_of_values, means_of_vectors, widened

Weights = NDArray[np.floating]
Table = tuple[Weights, NDArray[np.uint8]]


def table_of_values(weights: Weights) -> Table:
    """Hold at most 16 distinct weights exactly: a table, and the place of each weight in it.

    Exact by construction, which k-means with 16 means, started at random, is not bound to be.

    Args:
        weights: One channel of a ``w4`` program: at most 15 values.

    Returns:
        The table ``[16]`` in the weights' dtype, and flat indices.

    Example:
        >>> table, places = table_of_values(np.array([0.5, -0.5, 0.5], np.float32))
        >>> table[places].tolist()
        [0.5, -0.5, 0.5]
    """
    values, places = np.unique(widened(weights), return_inverse=True)
    table = np.zeros(16, weights.dtype)
    table[: len(values)] = values
    return table, places.reshape(-1).astype(np.uint8)


def table_maker(bits: int, *, vector: int = 1, without_zeros: bool = False) -> Callable[[Weights], Table]:
    """Make the function that finds a table for a group of channels.

    Args:
        bits: Of an index: the table has ``2 ** bits`` entries.
        vector: Neighbouring channels that an entry holds.
        without_zeros: Zeros are not stored, so that the table need not hold one; their index is 0.

    Returns:
        A function from weights ``[channels, ...]`` to the table (``[entries]`` or ``[entries, vector]``, in the
        weights' dtype) and indices, flat, in the order of the weights or of their vectors.
    """

    def table_of(weights: Weights) -> Table:
        entries = 1 << bits
        table: Weights
        if vector > 1:
            means, places = means_of_vectors(_vectors(weights, vector), entries)
            table = np.zeros((entries, vector), weights.dtype)
        else:
            flat = weights.reshape(-1)
            kept = flat != 0 if without_zeros else np.ones(flat.shape, bool)
            places = np.zeros(flat.shape, np.int64)
            means, places[kept] = means_of_values(flat[kept], entries)
            table = np.zeros(entries, weights.dtype)
        table[: len(means)] = means
        return table, places.astype(np.uint8)

    return table_of


def _vectors(weights: Weights, size: int) -> Weights:
    """Return the vectors of neighbouring channels ``[n, size]``, in the order that coremltools expects.

    ``optimize._utils.reshape_weight_for_vector_lut`` with the vectors along axis 0.
    """
    last = np.swapaxes(weights, -1, 0)
    split = last.reshape(*last.shape[:-1], last.shape[-1] // size, size)
    return np.swapaxes(split, -2, 0).reshape(-1, size)
