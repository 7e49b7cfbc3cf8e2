"""Quantization-aware training: learned ranges, kept zeros and shared values, and layers that must stay float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny_keras as tiny
from ai_edge_litert.interpreter import Interpreter

from edgekit.errors import UnsupportedError
from edgekit.frameworks.keras.fit import variables_digest
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.quantize import (
    quantize_aware,
    refuse_unsupported_layers,
    train_quantized,
    unsupported_layers,
)
from edgekit.frameworks.keras.ranges import ActivationRanges
from edgekit.frameworks.keras.train import Compression, train_model
from edgekit.frameworks.requests import ProgramRequest
from edgekit.recipe.schema import ClusterRule, ModelSection, PruneRule, QuantizeRule, VerifySection

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected:UserWarning"),
]

PRUNE = PruneRule(sparsity=0.5, every_steps=2, skip=("stem",))
CLUSTER = ClusterRule(clusters=8)


def request(folder: Path, **changes: object) -> ProgramRequest:
    values: dict[str, object] = {
        "model": ModelSection(source="a:b"),
        "data": None,
        "weights": folder / "weights.npz",
        "precision": "int8",
        "quantize": QuantizeRule(mode="qat", epochs=2),
        "train": tiny.settings(),
        "prune": None,
        "distil": None,
        "verify": VerifySection(),
        "dynamic_batch": False,
        "work_dir": folder,
        "output_dir": folder,
        **changes,
    }
    return ProgramRequest(**values)  # type: ignore[arg-type]


def converted(model: Any) -> Interpreter:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    return interpreter


def integers(interpreter: Interpreter, shape: tuple[int, ...]) -> np.ndarray:
    details = [d for d in interpreter.get_tensor_details() if tuple(d["shape"]) == shape and d["dtype"] == np.int8]
    return interpreter.get_tensor(details[0]["index"])


@pytest.mark.parametrize("cluster", [None, CLUSTER], ids=["pruned", "pruned and clustered"])
def test_zeros_and_shared_values_survive_when_the_first_layer_has_none(
    tmp_path: Path, cluster: ClusterRule | None
) -> None:
    """The library's own scheme stops keeping zeros at the first layer without one, here the stem."""
    model = tiny.convolutions()
    train_model(model, tiny.images(), tiny.settings(), compression=Compression(prune=PRUNE, cluster=cluster))
    before = tiny.weight(model, "point")
    asked = request(tmp_path, prune=PRUNE, cluster=cluster)
    trained, skipped = train_quantized(asked, Source("tf_keras", model, None), tiny.images())
    assert skipped == ()
    interpreter = converted(trained)
    kernel = integers(interpreter, (16, 1, 1, 16)).reshape(16, 16)
    assert bool((kernel.T[before.reshape(16, 16) == 0] == 0).all())
    assert not np.array_equal(trained.get_layer("quant_point").layer.get_weights()[-1], before), "it trained"
    if cluster is not None:
        assert max(len(np.unique(channel)) for channel in kernel) <= 8
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert operators >= {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def test_quantized_training_resumes_identical_when_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.convolutions()
    source = Source("tf_keras", model, None)
    rule = QuantizeRule(mode="qat", epochs=3)
    move = ActivationRanges.move

    def cut(self: ActivationRanges, moving: bool) -> None:
        move(self, moving)
        if not moving:
            raise KeyboardInterrupt

    monkeypatch.setattr(ActivationRanges, "move", cut)
    with pytest.raises(KeyboardInterrupt):
        train_quantized(request(tmp_path / "cut", quantize=rule), source, tiny.images())
    monkeypatch.undo()
    resumed, _ = train_quantized(request(tmp_path / "cut", quantize=rule), source, tiny.images())
    whole, _ = train_quantized(request(tmp_path / "whole", quantize=rule), source, tiny.images())
    assert (tmp_path / "cut" / "checkpoints-int8").is_dir()
    assert variables_digest(resumed) == variables_digest(whole), "ranges included"


def test_ranges_are_those_of_the_data_when_training_is_short() -> None:
    """The library starts at -6 to 6 and takes thousands of steps to leave it."""
    model = tiny.convolutions()
    quantized, _ = quantize_aware(model, QuantizeRule(mode="qat"))
    learning = [layer.layer.name for layer in quantized.layers if getattr(layer, "_weight_vars", ())]
    assert learning == ["stem", "depthwise", "point", "head"], "weights in front of a ReLU too"
    images = tiny.images().train.inputs[0].transpose(0, 2, 3, 1)[:32]  # type: ignore[attr-defined]
    before = [layer.get_weights() for layer in model.layers]
    ranges = ActivationRanges(quantized)
    ranges.start_from((images,))
    ranges.release()
    low, high = (
        next(v.numpy() for v in quantized.variables if "/quantize_layer" in v.name and v.name.endswith(f"_{side}:0"))
        for side in ("min", "max")
    )
    assert (low, high) == pytest.approx((images.min(), images.max()))
    expected, found = model(images, training=False).numpy(), quantized(images, training=False).numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    for layer, weights in zip(model.layers, before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), weights, strict=True))


def unquantizable() -> Any:
    layers = tf_keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    x = layers.PReLU(name="prelu")(x)
    x = layers.BatchNormalization(name="alone")(x)
    x = layers.Conv2D(8, 1, activation="elu", name="elu")(x)
    x = tf_keras.Sequential([layers.Input((6, 6, 8)), layers.Conv2D(4, 3, name="part")], name="inner")(x)
    x = layers.Flatten(name="flat")(x)
    return tf_keras.Model(inputs, layers.Dense(3, name="head")(x), name="mixed")


def test_layers_that_cannot_be_quantized_are_named_and_left_float(tmp_path: Path) -> None:
    model = unquantizable()
    reasons = {layer.name: layer.reason for layer in unsupported_layers(model)}
    assert set(reasons) == {"prelu", "alone", "elu", "inner", "inner.part"} | (set(reasons) & {"inner.input"})
    assert "PReLU layers" in reasons["prelu"]
    assert "'elu'" in reasons["elu"]
    assert "a model within the model" in reasons["inner.part"]
    rule = QuantizeRule(mode="qat", epochs=1, skip=("stem",))
    trained, skipped = train_quantized(request(tmp_path, quantize=rule), Source("tf_keras", model, None), tiny.images())
    found = {layer.name: layer.reason for layer in skipped}
    assert found["stem"] == "skipped by the rule 'stem'"
    assert {"prelu", "alone", "elu", "inner.part"} <= set(found)
    dtypes = {tuple(d["shape"]): d["dtype"] for d in converted(trained).get_tensor_details()}
    assert dtypes[(3, 64)] == np.int8
    assert dtypes[(8, 3, 3, 3)] == np.float32


def test_layers_that_cannot_be_quantized_are_refused_when_the_recipe_says_so() -> None:
    rule = QuantizeRule(mode="qat", unsupported="refuse")
    with pytest.raises(UnsupportedError, match=r"prelu \(PReLU\).*elu \(Conv2D\).*unsupported: float"):
        refuse_unsupported_layers(unquantizable(), rule)
    refuse_unsupported_layers(tiny.convolutions("keras"), rule)


def test_source_is_refused_when_its_graph_is_fixed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"tflite source.*mode: ptq"):
        train_quantized(request(tmp_path), Source("tflite", None, tmp_path), tiny.vectors())
