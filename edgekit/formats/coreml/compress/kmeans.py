"""k-means of weights, the same means for the same weights on every machine.

One-dimensional means are found by Lloyd's iteration ("Least squares quantization in PCM", 1982) over the sorted
distinct values, which costs a search for each boundary instead of a look at each weight. It starts where a fine
quantizer would have its values: spread by the cube root of the density (Panter & Dite, "Quantization distortion in
pulse-count modulation with nonuniform spacing of levels", 1951), so that nothing is drawn at random. Means of vectors
start from k-means++ (Arthur & Vassilvitskii 2007) with a fixed seed.

Nothing here sorts float16: numpy 2.4.6 leaves large float16 arrays with many equal values unsorted where the processor
has AVX-512 (``np.unique`` of 36,864 weights that take 16 values finds 20), and coremltools' own k-means trusts it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

_BINS = 1024
_ROUNDS = 300
_VECTOR_ROUNDS = 40
_CHUNK = 16384
"""Vectors looked at together: bounds the table of distances."""
_SEED = 0


def widened(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return values in a dtype that numpy sorts."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def means_of_values(values: NDArray[np.floating], count: int) -> tuple[Floats, Places]:
    """Find the values that stand for a tensor's with the least squared error.

    Args:
        values: Any shape, finite.
        count: At most so many means; fewer where the tensor has fewer distinct values, which are then kept exactly.

    Returns:
        Means in ascending order, and for each value, flat, the place of its mean.

    Example:
        >>> means, places = means_of_values(np.array([0.0, 0.1, 1.0, 1.1]), 2)
        >>> means.round(2).tolist(), places.tolist()
        ([0.05, 1.05], [0, 0, 1, 1])
    """
    flat = widened(values).reshape(-1)
    distinct, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    points = distinct.astype(np.float64)
    inverse = inverse.reshape(-1)
    if len(points) <= count:
        return points, inverse
    weight = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    moment = np.concatenate([[0.0], np.cumsum(counts * points)])
    means = _spread(points, counts, count)
    starts = np.zeros(count - 1, np.int64)
    for done in range(_ROUNDS):
        found = np.searchsorted(points, (means[1:] + means[:-1]) / 2)
        if done and np.array_equal(found, starts):
            break
        starts = found
        bounds = np.concatenate([[0], starts, [len(points)]])
        held = weight[bounds[1:]] - weight[bounds[:-1]]
        sums = moment[bounds[1:]] - moment[bounds[:-1]]
        means = np.sort(np.where(held > 0, sums / np.maximum(held, 1), means))
    return means, np.asarray(np.searchsorted(starts, inverse, side="right"), np.int64)


def _spread(points: Floats, counts: NDArray[np.integer], count: int) -> Floats:
    """Spread first means by the cube root of the density of sorted points."""
    density, edges = np.histogram(points, bins=_BINS, weights=counts.astype(np.float64))
    reached = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    wanted = (np.arange(count) + 0.5) / count * reached[-1]
    means: Floats = np.interp(wanted, reached, edges)
    return means


def means_of_vectors(vectors: NDArray[np.floating], count: int) -> tuple[Floats, Places]:
    """Find the vectors that stand for many, with the least squared error.

    Args:
        vectors: ``[n, d]``, finite.
        count: At most so many means; fewer where there are fewer distinct vectors, which are then kept exactly.

    Returns:
        Means ``[count, d]``, and the place of each vector's mean.
    """
    distinct, inverse, counts = np.unique(widened(vectors), axis=0, return_inverse=True, return_counts=True)
    points = distinct.astype(np.float64)
    inverse = inverse.reshape(-1)
    if len(points) <= count:
        return points, inverse
    means = _plus_plus(points, counts, count)
    places = _nearest(points, means)
    for _ in range(_VECTOR_ROUNDS):
        held = np.bincount(places, weights=counts, minlength=count)
        sums = np.stack([np.bincount(places, weights=counts * axis, minlength=count) for axis in points.T], axis=1)
        means = np.where(held[:, None] > 0, sums / np.maximum(held, 1)[:, None], means)
        found = _nearest(points, means)
        if np.array_equal(found, places):
            break
        places = found
    return means, places[inverse]


def _plus_plus(points: Floats, counts: NDArray[np.integer], count: int) -> Floats:
    generator = np.random.default_rng(_SEED)
    chosen = [int(np.argmax(counts))]
    distance = _squared(points, points[chosen[0]])
    for _ in range(count - 1):
        share = np.cumsum(distance * counts)
        chosen.append(int(np.searchsorted(share, generator.random() * share[-1], side="right")))
        distance = np.minimum(distance, _squared(points, points[chosen[-1]]))
    return points[chosen]


def _squared(points: Floats, center: Floats) -> Floats:
    distance: Floats = ((points - center) ** 2).sum(axis=1)
    return distance


def _nearest(points: Floats, means: Floats) -> Places:
    """Return the nearest mean of each point, the first of equals.

    Written out by axis: the last bits of a matrix product depend on how many threads share it.
    """
    found = np.empty(len(points), np.int64)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        distance = np.zeros((len(part), len(means)))
        for axis in range(points.shape[1]):
            distance += (part[:, axis, None] - means[:, axis]) ** 2
        found[start : start + _CHUNK] = distance.argmin(axis=1)
    return found
