"""The rank test against scipy's, and against its definition."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, mannwhitneyu

from edgekit.budget.significance import share_p_value, slower_p_value, smallest_p_value

finite = st.floats(0.01, 1e4, allow_nan=False)


@given(st.lists(finite, min_size=2, max_size=8, unique=True), st.integers(1, 7))
def test_p_value_equals_scipys_exact_one_when_there_are_no_ties(values: list[float], cut: int) -> None:
    cut = min(cut, len(values) - 1)
    before, after = values[:cut], values[cut:]
    expected = mannwhitneyu(after, before, alternative="greater", method="exact").pvalue
    assert slower_p_value(before, after) == pytest.approx(expected)


@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0]), min_size=4, max_size=80), st.integers(2, 78))
def test_p_value_equals_scipys_approximation_when_values_repeat(values: list[float], cut: int) -> None:
    cut = min(cut, len(values) - 2)
    before, after = values[:cut], values[cut:]
    if len(set(values)) == 1 or len(set(values)) == len(values):
        return
    expected = mannwhitneyu(after, before, alternative="greater", method="asymptotic").pvalue
    assert slower_p_value(before, after) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_p_value_counts_orders_when_few_samples() -> None:
    """The definition: the share of all orders of the ranks whose U is at least the one seen."""
    before, after = [3.0, 1.0, 4.0], [2.0, 5.0]

    def u(first: tuple[float, ...], second: tuple[float, ...]) -> int:
        return sum(a > b for a in second for b in first)

    seen = u(tuple(before), tuple(after))
    orders = list(permutations([*before, *after]))
    at_least = sum(u(order[:3], order[3:]) >= seen for order in orders)
    assert slower_p_value(before, after) == pytest.approx(at_least / len(orders))


def test_p_value_is_one_when_nothing_is_known() -> None:
    assert slower_p_value([], [1.0]) == 1.0
    assert slower_p_value([2.0] * 30, [2.0] * 30) == 1.0


def test_smallest_p_value_is_reached_when_every_sample_is_slower() -> None:
    before, after = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0]
    assert slower_p_value(before, after) == pytest.approx(smallest_p_value(before, after))


def test_false_alarms_are_as_rare_as_promised_when_nothing_changed() -> None:
    draw = np.random.default_rng(5)
    alarms = sum(slower_p_value(draw.gamma(9, size=50), draw.gamma(9, size=50)) < 0.05 for _ in range(600))
    assert alarms / 600 < 0.085


@given(st.integers(1, 99), st.integers(1, 199))
def test_p_value_of_two_shares_equals_scipys_chi_square(first: int, second: int) -> None:
    expected = chi2_contingency([[first, 100 - first], [second, 200 - second]], correction=False).pvalue
    assert share_p_value(first / 100, second / 200, (100, 200)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shares", "samples", "p_value"),
    [((0.5, 0.5), (10, 10), 1.0), ((0.9, 0.1), (0, 10), 1.0), ((1.0, 1.0), (5, 5), 1.0)],
)
def test_shares_are_taken_for_equal_when_nothing_speaks_against_it(
    shares: tuple[float, float], samples: tuple[int, int], p_value: float
) -> None:
    assert share_p_value(*shares, samples) == p_value
