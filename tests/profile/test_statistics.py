from __future__ import annotations

import statistics
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.profile.interleave import compare_rounds, interleave
from edgekit.profile.statistics import ratio_of_medians, relative_spread, summarize

SAMPLES = st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=60)


def litert_percentile(ordered: list[float], p: float) -> float:
    """As ai_edge_litert.tools.benchmark_litert_model computes it."""
    k = (len(ordered) - 1) * p / 100.0
    f = int(k)
    return ordered[-1] if f + 1 >= len(ordered) else ordered[f] + (k - f) * (ordered[f + 1] - ordered[f])


@given(SAMPLES)
def test_summary_is_ordered_and_bounded(samples: list[float]) -> None:
    found = summarize(samples, init_ms=1.0, first_ms=2.0)
    tiny = 1e-9 * found.max
    ordered = [found.min, found.p5, found.median, found.p90, found.p95, found.p99, found.max]
    assert all(low <= high + tiny for low, high in pairwise(ordered))
    assert found.min <= found.mean <= found.max
    assert found.samples == tuple(samples)
    assert found.p50 == found.median


@given(SAMPLES)
def test_summary_agrees_with_the_benchmark_tool(samples: list[float]) -> None:
    found = summarize(samples, init_ms=1.0, first_ms=2.0)
    ordered = sorted(samples)
    for p, value in ((5, found.p5), (90, found.p90), (95, found.p95), (99, found.p99)):
        assert value == pytest.approx(litert_percentile(ordered, p), rel=1e-9)
    assert found.median == pytest.approx(statistics.median(samples), rel=1e-12)
    assert found.std == pytest.approx(statistics.stdev(samples) if len(samples) > 1 else 0.0, rel=1e-6, abs=1e-9)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_summary_does_not_depend_on_the_order_of_runs(samples: list[float], random: object) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = (summarize(values, init_ms=1.0, first_ms=2.0) for values in (samples, shuffled))
    assert (a.median, a.p95, a.min, a.max) == (b.median, b.p95, b.min, b.max)


def test_summary_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="at least one timed run"):
        summarize([], init_ms=1.0, first_ms=1.0)


@given(st.floats(0.1, 100.0), st.floats(1.0, 1e4))
def test_spread_is_not_moved_by_a_few_interrupted_runs(median: float, delay: float) -> None:
    assert relative_spread([median] * 7 + [median + delay] * 3) == 0.0


@given(st.integers(0, 2**32 - 1))
def test_spread_of_normal_samples_is_their_standard_deviation(seed: int) -> None:
    samples = np.random.default_rng(seed).normal(10.0, 0.5, 4000)
    assert relative_spread(samples.tolist()) == pytest.approx(0.05, rel=0.15)


def rounds(seed: int, factor: float, count: int = 20) -> tuple[list[list[float]], list[list[float]]]:
    """The machine's mood changes from round to round by up to four times."""
    generator = np.random.default_rng(seed)
    mood = generator.uniform(1.0, 4.0, (count, 1))
    a = mood * generator.normal(10.0, 0.1, (count, 5))
    b = mood * factor * generator.normal(10.0, 0.1, (count, 5))
    return a.tolist(), b.tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 1.1, 2.0]))
def test_ratio_is_found_through_a_moody_machine(seed: int, factor: float) -> None:
    found = ratio_of_medians(*rounds(seed, factor), seed=seed, resamples=300)
    assert found.value == pytest.approx(factor, rel=0.02)
    assert found.low <= found.value <= found.high
    assert (found.low > 1) == (factor > 1)


def test_ratio_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        found = ratio_of_medians(*rounds(seed, 1.05), seed=seed, resamples=200)
        held += found.low <= 1.05 <= found.high
    assert 0.85 <= held / 200 <= 1.0


def test_ratio_is_repeatable() -> None:
    a, b = rounds(5, 1.2)
    assert ratio_of_medians(a, b, seed=1) == ratio_of_medians(a, b, seed=1)


@pytest.mark.parametrize(("a", "b"), [([[1.0]], [[1.0]]), ([[1.0], [1.0]], [[1.0]])])
def test_ratio_refuses_too_few_rounds(a: list[list[float]], b: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        ratio_of_medians(a, b)


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "b"), (1.0, "same"), (1.25, "a")])
def test_comparison_names_the_faster_one(factor: float, verdict: str) -> None:
    found = compare_rounds(*rounds(11, factor), seed=2)
    assert found.verdict == verdict
    assert found.rounds == 20
    assert found.runs_per_round == 5


def test_interleave_alternates_who_goes_first() -> None:
    turns: list[str] = []
    found = interleave(lambda: turns.append("a"), lambda: turns.append("b"), rounds=4, runs_per_round=2, warmup_runs=1)
    assert "".join(turns) == "ab" + "aaabbb" + "bbbaaa" + "aaabbb" + "bbbaaa"
    assert found.rounds == 4


def test_interleave_finds_the_ratio_when_one_takes_twice_as_long() -> None:
    # asleep rather than busy: other work on the machine hardly matters
    found = interleave(lambda: time.sleep(0.02), lambda: time.sleep(0.04), rounds=5, runs_per_round=3, warmup_runs=0)
    assert found.ratio == pytest.approx(2.0, rel=0.15)
    assert found.verdict == "a"
    assert found.ratio_low <= found.ratio <= found.ratio_high
