"""What pruning rules allow, and the schedule they describe: pure functions that no framework is needed for."""

from __future__ import annotations

import math

from edgekit.errors import RecipeError, UnsupportedError
from edgekit.recipe.schema import PruneRule

__all__ = ["check_prune_rule", "first_final_epoch", "is_update_step", "ramp_steps", "target_sparsity"]

PAIRED_SPARSITY = 0.5
"""Two of every four weights: the only sparsity that ``2:4`` stands for."""


def check_prune_rule(rule: PruneRule, place: str = "compress.prune") -> None:
    """Refuse a rule that cannot be carried out, before any training.

    Args:
        rule: As written in the recipe.
        place: Where it was written; errors name it.

    Raises:
        UnsupportedError: Structured (channel) pruning.
        RecipeError: A sparsity other than 0.5 for ``2:4``, or a schedule that ends before it begins.
    """
    if rule.granularity == "channel":
        raise UnsupportedError(
            f"{place}.granularity: channel",
            reason="removing whole channels changes the shapes of the layers around them, which magnitude masks do not",
            instead="granularity: weight (any share of the weights) or 2:4 (two of every four)",
        )
    if rule.granularity == "2:4" and rule.sparsity != PAIRED_SPARSITY:
        raise RecipeError(
            f"{place}.sparsity: expected 0.5, which granularity 2:4 means (two of every four weights are zero); "
            f"received {rule.sparsity:g}. Write sparsity: 0.5, or granularity: weight for another share."
        )
    if rule.end < rule.begin:
        raise RecipeError(
            f"{place}: expected begin <= end (shares of the training, 0 to 1); "
            f"received begin: {rule.begin:g}, end: {rule.end:g}."
        )


def ramp_steps(rule: PruneRule, steps: int) -> tuple[int, int]:
    """Return the first and the last training step (counted from 0) at which masks are drawn.

    Both lie within the training, so that even one of a single step ends with the sparsity that was asked for.

    Args:
        rule: Its ``begin`` and ``end`` are shares of the training.
        steps: Optimizer steps of the whole training.
    """
    last = max(steps - 1, 0)
    return min(round(rule.begin * steps), last), min(round(rule.end * steps), last)


def is_update_step(rule: PruneRule, step: int, steps: int) -> bool:
    """Say whether masks are drawn anew after this step: every ``every_steps`` of the ramp, and at its end."""
    first, last = ramp_steps(rule, steps)
    if rule.schedule == "constant":
        return step == first
    return first <= step <= last and ((step - first) % rule.every_steps == 0 or step == last)


def target_sparsity(rule: PruneRule, step: int, steps: int) -> float:
    """Return the share of zeros that a layer should have after a step.

    Polynomial schedule: Zhu & Gupta, "To prune, or not to prune" (2017), eq. 1, from an initial sparsity of 0:
    ``s_t = s_f - s_f * (1 - (t - t_0) / (t_n - t_0)) ** 3``, steep at first, when weights are easily spared. The
    constant schedule is at the final sparsity from its first step.

    Args:
        rule: Final sparsity, and where the ramp begins and ends.
        step: Optimizer step, from 0.
        steps: Optimizer steps of the whole training.

    Example:
        >>> rule = PruneRule(sparsity=0.8, begin=0.0, end=1.0)
        >>> [round(target_sparsity(rule, step, 101), 3) for step in (0, 50, 100)]
        [0.0, 0.7, 0.8]
    """
    first, last = ramp_steps(rule, steps)
    if step < first:
        return 0.0
    if rule.schedule == "constant" or step >= last:
        return rule.sparsity
    left = 1.0 - (step - first) / (last - first)
    return rule.sparsity * (1.0 - left**3)


def first_final_epoch(rule: PruneRule, epochs: int) -> int:
    """Return the first epoch (from 0) that ends with the final sparsity; only from here on are models comparable."""
    share = rule.end if rule.schedule == "polynomial" else rule.begin
    return min(math.ceil(share * epochs), max(epochs - 1, 0))
