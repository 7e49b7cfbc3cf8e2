"""Compare two artifacts by turns, so that whatever slows the machine down slows both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.profile.measure import time_runs
from edgekit.profile.statistics import ratio_of_medians


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much longer B takes than A.

    Attributes:
        median_a_ms, median_b_ms: Over all runs.
        ratio: Median over the rounds of B's median over A's; below 1, B is faster.
        ratio_low, ratio_high: Its 95 % confidence interval (bootstrap over rounds).
        rounds, runs_per_round: How it was taken.
        verdict: ``a`` or ``b`` is faster, or ``same`` where the interval holds 1.
    """

    median_a_ms: float
    median_b_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    runs_per_round: int
    verdict: str


def interleave(
    execute_a: Callable[[], None],
    execute_b: Callable[[], None],
    *,
    rounds: int,
    runs_per_round: int,
    warmup_runs: int,
    seed: int = 0,
) -> Comparison:
    """Time A and B by turns: AB BA AB BA, so that neither is always the one that goes first.

    Args:
        execute_a: Runs one inference of A.
        execute_b: Runs one inference of B.
        rounds: Of both, at least 2.
        runs_per_round: Timed runs of each in a round, after one that is not timed (the other one had the caches).
        warmup_runs: Of each, before the first round.
        seed: Of the bootstrap.
    """
    for _ in range(warmup_runs):
        execute_a()
        execute_b()
    times_a: list[tuple[float, ...]] = []
    times_b: list[tuple[float, ...]] = []
    for index in range(rounds):
        turns = [(execute_a, times_a), (execute_b, times_b)]
        for execute, times in turns if index % 2 == 0 else reversed(turns):
            execute()
            times.append(time_runs(execute, runs_per_round))
    return compare_rounds(times_a, times_b, seed=seed)


def compare_rounds(
    times_a: Sequence[Sequence[float]], times_b: Sequence[Sequence[float]], *, seed: int = 0
) -> Comparison:
    """Sum up interleaved rounds (milliseconds), wherever they were timed.

    Raises:
        ValueError: Fewer than two rounds, or not as many of each.
    """
    ratio = ratio_of_medians(times_a, times_b, seed=seed)
    verdict = "a" if ratio.low > 1.0 else "b" if ratio.high < 1.0 else "same"
    return Comparison(
        median_a_ms=float(np.median(np.concatenate([np.asarray(runs) for runs in times_a]))),
        median_b_ms=float(np.median(np.concatenate([np.asarray(runs) for runs in times_b]))),
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        rounds=len(times_a),
        runs_per_round=len(times_a[0]),
        verdict=verdict,
    )
