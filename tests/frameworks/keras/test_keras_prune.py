"""Pruning by TensorFlow Model Optimization: schedules that end where they should, and layers that stay whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
import tiny_keras as tiny

from edgekit.errors import RecipeError, UnsupportedError
from edgekit.frameworks.keras.prune import Pruner, prunable_kernels
from edgekit.frameworks.keras.strategy import clone
from edgekit.frameworks.keras.train import Compression, train_model
from edgekit.recipe.schema import PruneRule, TrainSection

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def pruned(model: Any, rule: PruneRule, settings: TrainSection, folder: Path | None = None) -> Any:
    return train_model(model, tiny.vectors(), settings, compression=Compression(prune=rule), checkpoints=folder)


@pytest.mark.parametrize(
    ("library", "rule", "expected"),
    [
        ("tf_keras", PruneRule(sparsity=0.7, every_steps=2), 0.7),
        ("keras", PruneRule(sparsity=0.7, schedule="constant", begin=0.5), 0.7),
        ("tf_keras", PruneRule(sparsity=0.5, granularity="2:4", begin=0.5), 0.5),
        ("tf_keras", PruneRule(sparsity=0.7, begin=1.0, end=1.0), 0.7),
    ],
)
def test_training_ends_at_the_sparsity_that_was_asked_for(library: str, rule: PruneRule, expected: float) -> None:
    model = tiny.plain_perceptron(library)
    report = pruned(model, rule, tiny.settings(epochs=4))
    kernel = tiny.weight(model, "first")
    assert report.sparsity_by_layer["first"] == (kernel == 0).mean() == round(expected * kernel.size) / kernel.size
    sparsities = [metric.sparsity for metric in report.epochs]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] == 0.0 if rule.begin >= 0.5 else sparsities[0] < sparsities[-1]
    if rule.granularity == "2:4":
        assert bool(((kernel.T.reshape(-1, 4) == 0).sum(axis=1) == 2).all()), "groups lie along the inputs"


def test_pruned_training_resumes_identical_when_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, settings = PruneRule(sparsity=0.6, every_steps=2), tiny.settings(epochs=3)
    step = Pruner._after_step

    def cut(self: Pruner, number: int, steps: int) -> None:
        step(self, number, steps)
        if number == 4:
            raise KeyboardInterrupt

    cut_off, whole = tiny.perceptron(), tiny.perceptron()
    monkeypatch.setattr(Pruner, "_after_step", cut)
    with pytest.raises(KeyboardInterrupt):
        pruned(cut_off, rule, settings, tmp_path)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001.ckpt"]
    resumed = pruned(cut_off, rule, settings, tmp_path)
    expected = pruned(whole, rule, settings)
    assert tiny.same_weights(cut_off, whole)
    assert [m.loss for m in resumed.epochs] == [m.loss for m in expected.epochs]


def test_best_weights_are_pruned_when_training_has_patience() -> None:
    model = tiny.plain_perceptron()
    rule = PruneRule(sparsity=0.9, begin=0.2, end=0.9, every_steps=1)
    report = pruned(model, rule, tiny.settings(epochs=5, patience=1))
    assert len(report.epochs) == 5
    assert report.sparsity_by_layer["first"] == round(0.9 * 256) / 256


def test_each_layer_is_pruned_or_skipped_with_a_reason() -> None:
    layers = tf_keras.layers
    image, words = layers.Input((8, 8, 3)), layers.Input((6,), dtype="int32")
    inner = tf_keras.Sequential([layers.Input((8, 8, 16)), layers.Conv2D(16, 1, name="point")], name="block")
    x = layers.Conv2D(16, 3, padding="same", name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization(name="norm")(inner(x))
    x = layers.Conv2DTranspose(8, 2, name="up")(x)
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Embedding(10, 8, name="embed")(words)
    y = layers.Conv1D(8, 3, name="sequence")(y)
    y = layers.LSTM(8, name="lstm")(y)
    y = layers.Dense(4, name="small")(layers.Dense(4, name="tiny")(y))
    model = tf_keras.Model([image, words], layers.Dense(3, name="head")(layers.Concatenate()([x, y])))
    rule = PruneRule(sparsity=0.5, granularity="2:4", skip=("head",))
    kernels, skipped = prunable_kernels(model, rule)
    assert {path: [kernel.label for kernel in found] for path, found in kernels.items()} == {
        "block.point": ["block.point"],
        "lstm": ["lstm.kernel", "lstm.recurrent_kernel"],
        "tiny": ["tiny"],
    }
    reasons = {layer.name: layer.reason for layer in skipped}
    assert reasons.pop("stem") == "2:4 needs an input dimension that is a multiple of 4; this one is 3"
    assert reasons.pop("depthwise").startswith("depthwise")
    assert reasons.pop("embed") == "a lookup table multiplies nothing"
    assert reasons.pop("small") == "16 weights; below 32 zeros save nothing"
    assert reasons.pop("head") == "skipped by the rule 'head'"
    assert set(reasons) == {"up", "sequence"}
    assert all("2:4 masks of TensorFlow Model Optimization" in reason for reason in reasons.values())
    copy = clone(model)
    report = Pruner.prepare(copy, rule, 10).finalize()
    assert report.sparsity_by_layer == dict.fromkeys(report.sparsity_by_layer, 0.5), "recurrent and nested ones too"
    assert len(report.sparsity_by_layer) == 4
    assert np.count_nonzero(model.get_layer("tiny").kernel.numpy()) == 32, "the model that was cloned is as it was"


def test_rule_is_refused_when_it_cannot_be_followed() -> None:
    model = tiny.plain_perceptron()
    with pytest.raises(UnsupportedError, match=r"channel.*granularity: weight"):
        Pruner.prepare(model, PruneRule(sparsity=0.5, granularity="channel"), 10)
    with pytest.raises(RecipeError, match=r"expected 0\.5.*received 0\.7"):
        Pruner.prepare(model, PruneRule(sparsity=0.7, granularity="2:4"), 10)
    with pytest.raises(RecipeError, match="matches no layer"):
        Pruner.prepare(model, PruneRule(sparsity=0.7, skip=("features.*",)), 10)
