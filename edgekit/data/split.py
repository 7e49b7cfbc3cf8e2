"""Deterministic splits of samples that a source delivers in one piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Array
from edgekit.errors import DataError

Indices = NDArray[np.int64]


def stratified_order(labels: Array | None, count: int, seed: int) -> Indices:
    """Order samples at random such that every prefix holds the classes in about their true shares.

    Each sample gets the key ``(rank within its class + u) / size of its class`` with one ``u`` in [0, 1) a class;
    sorting by the key interleaves the classes evenly. Without class labels the order is a plain permutation.

    Args:
        labels: Class indices ``[N]``, or None (also regression targets: anything that is not an integer vector).
        count: N.
        seed: Draws the order; the same seed gives the same order everywhere.

    Returns:
        A permutation of ``range(count)``.

    Example:
        >>> labels = np.array([0] * 8 + [1] * 2)
        >>> sorted(labels[stratified_order(labels, 10, seed=0)[:5]].tolist())
        [0, 0, 0, 0, 1]
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(count).astype(np.int64)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return order
    keys = np.empty(count, dtype=np.float64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        keys[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return order[np.argsort(keys[order], kind="stable")]


def hold_out(indices: Indices, labels: Array | None, share: float, seed: int, what: str) -> tuple[Indices, Indices]:
    """Divide samples in two, the classes alike in both.

    Args:
        indices: Samples to divide, ``[N]``.
        labels: Labels of all samples of the source (``labels[indices]`` are theirs), or None.
        share: Share that is held out, rounded to at least one sample.
        seed: Draws the division.
        what: Name of the part that is held out, for the error.

    Returns:
        The samples that stay and those held out, each in ascending order.

    Raises:
        DataError: Fewer than two samples.
    """
    if len(indices) < 2:
        raise DataError(f"expected at least 2 samples to hold out a {what} split; received {len(indices)}")
    order = stratified_order(None if labels is None else labels[indices], len(indices), seed)
    held = min(max(1, round(len(indices) * share)), len(indices) - 1)
    return np.sort(indices[order[held:]]), np.sort(indices[order[:held]])
