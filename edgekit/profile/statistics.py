"""From samples to figures: percentiles, robust spread, and an interval for the ratio of two medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.records import LatencyMs

NOISY_SPREAD = 0.10
"""A relative spread above which a profile says that its machine was noisy."""

_MAD_TO_STD = 1.4826  # makes the median absolute deviation of normal samples their standard deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


def summarize(
    samples_ms: Sequence[float], *, init_ms: float, first_ms: float, init_cold_ms: float | None = None
) -> LatencyMs:
    """Sum up the timed runs.

    Percentiles interpolate linearly between ranks (Hyndman and Fan 1996, type 7, numpy's default and that of LiteRT's
    benchmark); ``std`` is the sample standard deviation (n - 1), 0 for one run.

    Args:
        samples_ms: One entry a run, in the order of the runs.
        init_ms: Loading with a warm page cache.
        first_ms: The first run after it.
        init_cold_ms: Loading after the file was dropped from the page cache; None where that cannot be done.

    Raises:
        ValueError: No samples.
    """
    if not samples_ms:
        raise ValueError("expected at least one timed run; received none")
    values = np.asarray(samples_ms, dtype=np.float64)
    p5, median, p90, p95, p99 = (float(p) for p in np.percentile(values, [5, 50, 90, 95, 99]))
    low, high = float(values.min()), float(values.max())
    return LatencyMs(
        init=init_ms,
        first=first_ms,
        mean=min(max(float(values.mean()), low), high),  # rounding can carry the mean of equal samples past them
        median=median,
        min=low,
        max=high,
        p5=p5,
        p90=p90,
        p95=p95,
        p99=p99,
        std=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        samples=tuple(float(value) for value in samples_ms),
        init_cold=init_cold_ms,
    )


def relative_spread(samples_ms: Sequence[float]) -> float:
    """Robust spread: 1.4826 times the median absolute deviation, as a share of the median.

    A few runs that were interrupted do not move it, as they would a standard deviation.

    Example:
        >>> relative_spread([1.0, 1.0, 1.0, 9.0])
        0.0
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return _MAD_TO_STD * deviation / median if median > 0 else 0.0


def ratio_of_medians(
    rounds_a: Sequence[Sequence[float]],
    rounds_b: Sequence[Sequence[float]],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Estimate how much longer B takes than A from interleaved rounds.

    The runs of one round share the machine's mood, so each round gives one ratio, in which what slows both down
    cancels; the estimate is the median of these ratios. The bootstrap (Efron 1979, percentile interval) draws rounds.

    Args:
        rounds_a: The rounds of A, each with its runs, in any unit.
        rounds_b: As many rounds of B.
        confidence: Of the interval.
        resamples: Bootstrap repetitions.
        seed: Makes the interval repeatable.

    Returns:
        Median over the rounds of (median of B's runs / median of A's runs).

    Raises:
        ValueError: Fewer than two rounds, or not as many of each.

    Example:
        >>> ratio_of_medians([[1.0], [1.0]], [[2.0], [2.0]])
        Interval(value=2.0, low=2.0, high=2.0)
    """
    if len(rounds_a) != len(rounds_b) or len(rounds_a) < 2:
        raise ValueError(f"expected as many rounds of each, at least 2; received {len(rounds_a)} and {len(rounds_b)}")
    a = np.array([np.median(runs) for runs in rounds_a], dtype=np.float64)
    b = np.array([np.median(runs) for runs in rounds_b], dtype=np.float64)
    ratios = b / a
    value = float(np.median(ratios))
    drawn = np.random.default_rng(seed).integers(0, len(ratios), size=(resamples, len(ratios)))
    tail = (1.0 - confidence) / 2
    low, high = (float(edge) for edge in np.quantile(np.median(ratios[drawn], axis=1), [tail, 1.0 - tail]))
    return Interval(value=value, low=min(low, value), high=max(high, value))
