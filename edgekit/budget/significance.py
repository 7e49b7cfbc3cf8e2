"""Are two sets of timings different, or is it noise? The Mann–Whitney U test, one-sided.

Timings are not normal (a floor, and a long tail of interruptions), so ranks are compared, not means.
Source: Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other",
Annals of Mathematical Statistics 18 (1947): eq. 1 (U) and the recurrence of section 4 (its exact distribution).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, erfc, sqrt

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = 20
"""Samples a side up to which the exact distribution is counted; above it the normal approximation is as good."""


def slower_p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the probability of seeing ``after`` this much slower than ``before`` if nothing had changed.

    Args:
        before: Timings of the earlier build, ``[m]``.
        after: Timings of the build in question, ``[n]``, in the same unit.

    Returns:
        p between 0 and 1; 1.0 where either is empty.

    Example:
        Three against three, all slower: one of the 20 equally likely orders, so p = 1 / 20.

        >>> slower_p_value([1.0, 1.1, 1.2], [2.0, 2.1, 2.2])
        0.05
    """
    m, n = len(before), len(after)
    if m == 0 or n == 0:
        return 1.0
    values = np.asarray([*before, *after], dtype=np.float64)
    ranks, ties = _ranks(values)
    u = float(ranks[m:].sum()) - n * (n + 1) / 2
    if ties.max() == 1 and max(m, n) <= EXACT_UP_TO:
        counts = _orders_by_u(m, n)
        return float(sum(counts[round(u) :]) / comb(m + n, n))
    return _normal_tail(u, m, n, ties)


def smallest_p_value(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the smallest p that samples of these sizes can give: with too few, the test cannot say anything."""
    return 1.0 / comb(len(before) + len(after), len(after))


def share_p_value(first: float, second: float, samples: tuple[int, int]) -> float:
    """Return the probability of two shares this far apart if both were draws from the same one, two-sided.

    The z-test of two proportions with their pooled share (Fleiss, Levin and Paik, "Statistical Methods for Rates and
    Proportions", 3rd edition 2003, section 3.1). Models are judged on the same samples, which pairs the draws; a test
    that does not know the pairs errs on the side of calling a difference chance.

    Args:
        first: Share of successes, such as an accuracy, 0 to 1.
        second: The same of the other.
        samples: How many draws each is of.

    Returns:
        p between 0 and 1; 1.0 where either has no samples.

    Example:
        >>> round(share_p_value(0.90, 0.80, (100, 100)), 3)
        0.048
    """
    if min(samples) == 0 or first == second:
        return 1.0
    pooled = (first * samples[0] + second * samples[1]) / sum(samples)
    spread = sqrt(pooled * (1 - pooled) * (1 / samples[0] + 1 / samples[1]))
    return erfc(abs(first - second) / spread / sqrt(2)) if spread else 1.0


def _ranks(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the ranks from 1, mean ranks for ties, and the sizes of the groups of equal values."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean_rank = last - (sizes - 1) / 2
    return mean_rank[group], sizes


def _orders_by_u(m: int, n: int) -> list[int]:
    """Count the orders of ``m + n`` distinct values by their U: index is U, ``0 .. m n``.

    The generating function is the Gaussian binomial, a product of ``(1 - q^(m + i)) / (1 - q^i)``.
    """
    counts = [1] + [0] * (m * n)
    for i in range(1, n + 1):
        for u in range(m * n, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, m * n + 1):
            counts[u] += counts[u - i]
    return counts


def _normal_tail(u: float, m: int, n: int, ties: NDArray[np.int64]) -> float:
    """Return P(U >= u) by the normal approximation, corrected for ties and for continuity."""
    total = m + n
    tied = float((ties.astype(np.float64) ** 3 - ties).sum())
    variance = m * n / 12 * ((total + 1) - tied / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # every value is equal
    z = (u - m * n / 2 - 0.5) / sqrt(variance)
    return min(1.0, 0.5 * erfc(z / sqrt(2)))
