"""Pruning: exact masks, schedules that end where they should, and zeros that stay zeros."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import RecipeError, ToolError, UnsupportedError
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.loop import run_epochs, zero_share
from edgekit.frameworks.pytorch.masks import magnitude_mask, paired_mask
from edgekit.frameworks.pytorch.prune import MaskKeeper, Pruner, prunable_weights, zero_masks
from edgekit.frameworks.pytorch.train import train_module
from edgekit.recipe.schema import PruneRule

sizes = st.integers(1, 6)
seeds = st.integers(0, 10_000)


def weights(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Few distinct values, so that ties are common."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


@settings(deadline=None)  # the first call of a kernel on a busy machine
@given(sizes, sizes, seeds, st.floats(0, 1))
def test_magnitude_mask_drops_exactly_the_smallest(rows: int, columns: int, seed: int, sparsity: float) -> None:
    weight = weights((rows, columns), seed)
    mask = magnitude_mask(weight, sparsity)
    assert int((~mask).sum()) == round(sparsity * weight.numel())
    kept, dropped = weight[mask].abs(), weight[~mask].abs()
    assert not kept.numel() or not dropped.numel() or dropped.max() <= kept.min()


@settings(deadline=None)  # the first call of a kernel on a busy machine
@given(sizes, sizes, seeds, st.sampled_from([0, 1]))
def test_paired_mask_drops_the_two_smallest_of_every_four(rows: int, groups: int, seed: int, input_dim: int) -> None:
    shape = (rows, 4 * groups, 3, 2) if input_dim == 1 else (4 * groups, rows, 3, 2)
    weight = weights(shape, seed)
    mask = paired_mask(weight, input_dim)
    fours = mask.movedim(input_dim, -1).reshape(-1, 4)
    values = weight.abs().movedim(input_dim, -1).reshape(-1, 4)
    assert bool((fours.sum(dim=1) == 2).all())
    highest_dropped = values.masked_fill(fours, -1).max(dim=1).values
    lowest_kept = values.masked_fill(~fours, 99).min(dim=1).values
    assert bool((highest_dropped <= lowest_kept).all())


@settings(deadline=None)  # the first call of a kernel on a busy machine
@given(sizes, seeds, st.floats(0, 1))
def test_paired_mask_touches_only_the_cheapest_groups_when_on_the_way(groups: int, seed: int, share: float) -> None:
    weight = weights((4, 4 * groups), seed)
    mask = paired_mask(weight, 1, share)
    touched = ~mask.view(-1, 4).all(dim=1)
    assert int(touched.sum()) == round(share * 4 * groups)
    losses = weight.abs().view(-1, 4).sort(dim=1).values[:, :2].sum(dim=1)
    assert not touched.any() or touched.all() or losses[touched].max() <= losses[~touched].min()


def test_paired_mask_is_refused_when_groups_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiple of 4; received 6"):
        paired_mask(torch.ones(2, 6), 1)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PruneRule(sparsity=0.7, every_steps=2), 0.7),
        (PruneRule(sparsity=0.7, schedule="constant", begin=0.5), 0.7),
        (PruneRule(sparsity=0.5, granularity="2:4", every_steps=2), 0.5),
        (PruneRule(sparsity=0.7, begin=1.0, end=1.0), 0.7),
    ],
)
def test_training_ends_at_the_sparsity_that_was_asked_for(rule: PruneRule, expected: float) -> None:
    module = tiny.plain_perceptron()
    report = train_module(module, tiny.vectors(), tiny.settings(epochs=4), prune=rule)
    size = module[0].weight.numel()
    assert report.sparsity_by_layer["0"] == round(expected * size) / size
    assert [metric.sparsity for metric in report.epochs] == sorted(metric.sparsity for metric in report.epochs)
    assert report.epochs[-1].validation_accuracy is not None
    assert report.epochs[-1].validation_accuracy > 0.5
    assert report.sparsity == zero_share(module)


def test_dropped_weights_stay_dropped_when_training_goes_on() -> None:
    module = tiny.plain_perceptron()
    rule = PruneRule(sparsity=0.8, begin=0.1, end=0.5, every_steps=1)
    pruner = Pruner.prepare(module, rule)
    zeros: list[torch.Tensor] = []

    def watch(step: int, steps: int) -> None:
        pruner.step(step, steps)
        zeros.append(module[0].weight == 0)

    run_epochs(module, tiny.vectors(), tiny.settings(epochs=6), after_step=watch)
    for before, after in itertools.pairwise(zeros):
        assert bool(after[before].all())
    assert int(zeros[-1].sum()) > int(zeros[1].sum()), "the ramp went up"


def test_pruned_training_resumes_identical(tmp_path: Path) -> None:
    rule = PruneRule(sparsity=0.6, every_steps=5)

    def run(folder: Path, cut_at: int | None) -> nn.Module:
        module = tiny.perceptron()
        pruner = Pruner.prepare(module, rule)

        def step(step: int, steps: int) -> None:
            pruner.step(step, steps)
            if step == cut_at:
                raise KeyboardInterrupt

        try:
            run_epochs(
                module,
                tiny.vectors(),
                tiny.settings(epochs=4),
                after_step=step,
                checkpoints=Checkpoints(folder),
                stateful={"pruner": pruner},
            )
        except KeyboardInterrupt:
            return run(folder, None)
        pruner.finalize()
        return module

    assert tiny.same_weights(run(tmp_path / "cut", 7), run(tmp_path / "whole", None))


def test_best_weights_are_pruned_when_training_has_patience() -> None:
    module = tiny.plain_perceptron()
    rule = PruneRule(sparsity=0.9, begin=0.2, end=0.9, every_steps=1)
    report = train_module(module, tiny.vectors(), tiny.settings(epochs=8, patience=1), prune=rule)
    assert len(report.epochs) == 8
    assert report.sparsity_by_layer["0"] == round(0.9 * 256) / 256


def test_each_layer_is_pruned_or_skipped_with_a_reason() -> None:
    module = nn.ModuleDict(
        {
            "embed": nn.Embedding(10, 8),
            "stem": nn.Conv2d(3, 16, 3),
            "depthwise": nn.Conv2d(16, 16, 3, groups=16),
            "point": nn.Conv2d(16, 32, 1),
            "up": nn.ConvTranspose2d(8, 6, 3),
            "gru": nn.GRU(8, 8),
            "attention": nn.MultiheadAttention(8, 2),
            "pair": nn.Conv1d(4, 2, 3),
            "mix": nn.Bilinear(4, 4, 4),
            "norm": nn.BatchNorm2d(16),
            "head": nn.Linear(8, 8),
        }
    )
    rule = PruneRule(sparsity=0.5, granularity="2:4", skip=("attention", "type:Linear"))
    found, skipped = prunable_weights(module, rule)
    assert [weight.label for weight in found] == ["point", "up", "gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert next(weight.input_dim for weight in found if weight.label == "up") == 0
    reasons = {layer.name: layer.reason for layer in skipped}
    assert reasons["embed"] == "a lookup table multiplies nothing"
    assert reasons["stem"] == "2:4 needs an input dimension that is a multiple of 4; this one is 3"
    assert reasons["depthwise"].startswith("depthwise")
    assert reasons["pair"] == "24 weights; below 32 zeros save nothing"
    assert "not Bilinear" in reasons["mix"]
    assert reasons["head"] == "skipped by the rule 'type:Linear'"
    assert reasons["attention.in_proj_weight"] == "skipped by the rule 'attention'"
    assert reasons["attention.out_proj"] == "skipped by the rule 'attention'"
    assert "norm" not in reasons


def test_shared_weights_are_pruned_once() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    module[1].weight = module[0].weight
    assert [weight.name for weight in prunable_weights(module, PruneRule(sparsity=0.5))[0]] == ["0.weight"]


def test_rule_is_refused_when_it_cannot_be_followed() -> None:
    module = tiny.perceptron()
    with pytest.raises(UnsupportedError, match=r"channel.*granularity: weight"):
        Pruner.prepare(module, PruneRule(sparsity=0.5, granularity="channel"))
    with pytest.raises(RecipeError, match=r"expected 0\.5.*received 0\.7"):
        Pruner.prepare(module, PruneRule(sparsity=0.7, granularity="2:4"))
    with pytest.raises(RecipeError, match="matches no layer"):
        Pruner.prepare(module, PruneRule(sparsity=0.7, skip=("features.*",)))


@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_masks_survive_when_training_goes_on_without_the_pruner(granularity: str) -> None:
    rule = PruneRule(sparsity=0.5, granularity=granularity, every_steps=2)  # type: ignore[arg-type]
    module = tiny.plain_perceptron()
    train_module(module, tiny.vectors(), tiny.settings(), prune=rule)
    masks = zero_masks(module, rule)
    loose, kept = copy.deepcopy(module), copy.deepcopy(module)
    run_epochs(loose, tiny.vectors(), tiny.settings(epochs=1))
    run_epochs(kept, tiny.vectors(), tiny.settings(epochs=1), after_step=MaskKeeper(kept, masks))
    assert float((loose[0].weight == 0).float().mean()) < 0.1, "without masks the zeros go"
    assert torch.equal(kept[0].weight != 0, masks["0.weight"])


def test_masks_are_refused_when_they_belong_to_another_module() -> None:
    with pytest.raises(ToolError, match="no such parameter"):
        MaskKeeper(tiny.perceptron(), {"9.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ToolError, match=r"shape \[2, 2\]; received \[32, 8\]"):
        MaskKeeper(tiny.perceptron(), {"0.weight": torch.ones(2, 2, dtype=torch.bool)})


def test_finalize_reaches_the_sparsity_when_the_loop_stopped_early() -> None:
    module = tiny.plain_perceptron()
    pruner = Pruner.prepare(module, PruneRule(sparsity=0.5))
    pruner.step(0, 100)
    assert pruner.finalize().sparsity_by_layer == {"0": 0.5, "2": 0.5}
