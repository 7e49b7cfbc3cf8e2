"""The schedule of pruning: Zhu & Gupta's polynomial, and its ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError, UnsupportedError
from edgekit.recipe.pruning import check_prune_rule, first_final_epoch, is_update_step, target_sparsity
from edgekit.recipe.schema import PruneRule

shares = st.floats(0, 1)


@given(st.floats(0.01, 0.99), shares, shares, st.integers(1, 300), st.integers(1, 50))
def test_schedule_rises_and_ends_at_the_sparsity(
    sparsity: float, begin: float, end: float, steps: int, every: int
) -> None:
    begin, end = sorted((begin, end))
    rule = PruneRule(sparsity=sparsity, begin=begin, end=end, every_steps=every)
    targets = [target_sparsity(rule, step, steps) for step in range(steps)]
    assert targets == sorted(targets)
    assert targets[-1] == sparsity
    drawn = [target_sparsity(rule, step, steps) for step in range(steps) if is_update_step(rule, step, steps)]
    assert drawn, "even a training of one step is pruned"
    assert drawn[-1] == sparsity, "the last masks are the final ones"


def test_schedule_follows_the_paper_when_polynomial() -> None:
    rule = PruneRule(sparsity=0.9, begin=0.2, end=0.6, every_steps=10)
    assert target_sparsity(rule, 19, 100) == 0.0
    assert target_sparsity(rule, 20, 100) == 0.0
    assert target_sparsity(rule, 40, 100) == pytest.approx(0.9 * (1 - 0.5**3))
    assert target_sparsity(rule, 60, 100) == 0.9
    assert [step for step in range(100) if is_update_step(rule, step, 100)] == [20, 30, 40, 50, 60]


def test_schedule_prunes_once_when_constant() -> None:
    rule = PruneRule(sparsity=0.9, begin=0.3, schedule="constant")
    assert [step for step in range(100) if is_update_step(rule, step, 100)] == [30]
    assert target_sparsity(rule, 29, 100) == 0.0
    assert target_sparsity(rule, 30, 100) == 0.9


@given(shares, st.integers(1, 20), st.integers(1, 20))
def test_first_final_epoch_ends_after_the_ramp(end: float, epochs: int, steps_per_epoch: int) -> None:
    rule = PruneRule(sparsity=0.5, begin=0.0, end=end)
    epoch = first_final_epoch(rule, epochs)
    assert 0 <= epoch < epochs
    last_step = (epoch + 1) * steps_per_epoch - 1
    assert target_sparsity(rule, last_step, epochs * steps_per_epoch) == 0.5


def test_rule_is_refused_before_training() -> None:
    check_prune_rule(PruneRule(sparsity=0.5, granularity="2:4"))
    with pytest.raises(UnsupportedError, match="granularity: channel"):
        check_prune_rule(PruneRule(sparsity=0.5, granularity="channel"))
    with pytest.raises(RecipeError, match="begin <= end"):
        check_prune_rule(PruneRule(sparsity=0.5, begin=0.8, end=0.2))
