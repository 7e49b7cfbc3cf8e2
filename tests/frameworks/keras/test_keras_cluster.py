"""Clustering: few distinct weights, also in the file that the converter writes, and zeros that stay zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
import tiny_keras as tiny

from edgekit.errors import RecipeError
from edgekit.frameworks.keras.cluster import Clusterer, clusterable_kernels
from edgekit.frameworks.keras.convert import convert
from edgekit.frameworks.keras.folding import fold_batch_norms, is_folded
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.strategy import clone
from edgekit.frameworks.keras.train import Compression, train_model
from edgekit.program.tflite import flatbuffer
from edgekit.recipe.schema import ClusterRule, PruneRule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RULE = ClusterRule(clusters=8, epochs=1)


def kernels(content: bytes, path: Path) -> list[np.ndarray]:
    """The float constants of rank 2 and more in a file."""
    path.write_bytes(content)
    model = flatbuffer.read_model(path)
    found = []
    for tensor in model.subgraphs[0].tensors:
        data, shape = flatbuffer.constant_of(model, tensor), flatbuffer.shape_of(tensor)
        if data is not None and len(shape) >= 2 and flatbuffer.dtype_of(tensor) == "float32":
            found.append(data.view(np.float32).reshape(shape))
    return found


def with_statistics(model: Any) -> Any:
    """As after a long training: no batch norm is near the identity."""
    random = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.set_weights([random.uniform(0.5, 2.0, 16), *random.normal(size=(2, 16)), random.uniform(0.1, 3.0, 16)])
    return model


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_converted_weights_take_few_values_when_pruned_and_clustered(tmp_path: Path, library: str) -> None:
    """Without folding batch norms first, the converter makes up to 16 values of each shared one."""
    model = with_statistics(tiny.convolutions(library))
    compression = Compression(prune=PruneRule(sparsity=0.5, every_steps=2, skip=("head",)), cluster=RULE)
    report = train_model(model, tiny.images(), tiny.settings(), compression=compression)
    assert report.clusters_by_layer == {"stem": 8, "point": 8, "head": 8}
    assert [(m.epoch, m.phase) for m in report.epochs] == [*((n, "train") for n in range(3)), (3, "cluster")]
    assert (tiny.weight(model, "stem") == 0).mean() >= report.sparsity_by_layer["stem"] == 0.5
    assert not (tiny.weight(model, "head") == 0).any()
    assert report.skipped[-1].reason.startswith("depthwise")
    source = Source(library, model, None)  # type: ignore[arg-type]
    found = kernels(convert(source, "fp32", tmp_path / "work").content, tmp_path / "model.tflite")
    values = {kernel.shape: len(np.unique(kernel)) for kernel in found}
    assert {shape: values[shape] for shape in ((16, 3, 3, 3), (16, 1, 1, 16), (3, 16))} == {
        (16, 3, 3, 3): 8,
        (16, 1, 1, 16): 8,
        (3, 16): 8,
    }


def test_folded_batch_norm_multiplies_by_exactly_one_and_changes_nothing() -> None:
    layers = tf_keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.BatchNormalization(epsilon=1e-5)(layers.Conv2D(4, 3)(inputs))
    x = layers.BatchNormalization(center=False, scale=False)(layers.Conv2DTranspose(5, 3, use_bias=False)(x))
    x = layers.BatchNormalization()(layers.SeparableConv2D(6, 3, use_bias=False)(x))
    x = layers.BatchNormalization(name="behind_relu")(layers.ReLU()(x))
    model = tf_keras.Model(inputs, layers.BatchNormalization()(layers.Dense(3)(layers.Flatten()(x))))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 2.0, weight.shape) for weight in layer.get_weights()])
    images = tiny.images().train.inputs[0][:4].transpose(0, 2, 3, 1)  # type: ignore[attr-defined]
    expected = model(images, training=False).numpy()
    folded = fold_batch_norms(model)
    np.testing.assert_allclose(model(images, training=False).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(folded) == 4
    assert "behind_relu" not in folded
    for name in folded:
        norm = model.get_layer(name)
        assert is_folded(norm)
        assert not norm.trainable
        assert bool((norm.moving_variance.numpy() + np.float32(norm.epsilon) == 1).all())


def test_each_layer_is_clustered_or_skipped_with_a_reason() -> None:
    layers = tf_keras.layers
    words = layers.Input((6,), dtype="int32")
    x = layers.LSTM(8, name="lstm")(layers.Embedding(10, 8, name="embed")(words))
    x = layers.Dense(3, name="head")(layers.Dense(2, name="small")(layers.Dense(8, name="middle")(x)))
    model = tf_keras.Model(words, x)
    rule = ClusterRule(clusters=16, init="linear", skip=("type:LSTM",))
    kernels, skipped = clusterable_kernels(model, rule)
    assert list(kernels) == ["middle"]
    assert {layer.name: layer.reason for layer in skipped} == {
        "embed": "a lookup table multiplies nothing",
        "lstm": "skipped by the rule 'type:LSTM'",
        "small": "16 weights cannot share 16 values",
        "head": "6 weights cannot share 16 values",
    }
    plain, report = Clusterer.prepare(
        clone(model), ClusterRule(clusters=4, init="density"), keep_zeros=False
    ).finalize()
    assert set(report.clusters_by_layer) == {"lstm.kernel", "lstm.recurrent_kernel", "middle", "small", "head"}
    assert max(report.clusters_by_layer.values()) <= 4
    ids = np.arange(12, dtype=np.int32).reshape(2, 6) % 10
    assert plain(ids).shape == (2, 3)


def test_rule_is_refused_when_it_cannot_be_followed() -> None:
    with pytest.raises(RecipeError, match="expected at least 3 for a pruned model, one of which is zero; received 2"):
        Clusterer.prepare(tiny.plain_perceptron(), ClusterRule(clusters=2), keep_zeros=True)
    with pytest.raises(RecipeError, match=r"compress\.cluster\.skip.*matches no layer"):
        Clusterer.prepare(tiny.plain_perceptron(), ClusterRule(skip=("nothing",)), keep_zeros=False)
