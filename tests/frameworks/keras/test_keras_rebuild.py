"""Rebuilding: a Keras 3 model as tf_keras has the same names, weights and outputs, or the layer in the way is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_models as models
import numpy as np
import pytest
import tf_keras
from keras import layers

from edgekit.errors import ModelError
from edgekit.frameworks.keras import rebuild
from edgekit.frameworks.keras.rebuild import as_tf_keras
from edgekit.frameworks.keras.weights_file import read_weights, weight_arrays, write_weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def convolutional() -> Any:
    image = keras.Input((16, 16, 3), name="image")
    hidden = layers.ZeroPadding2D()(layers.Rescaling(1 / 255)(image))
    hidden = layers.Conv2D(4, 3, strides=2, use_bias=False, kernel_regularizer="l2")(hidden)
    hidden = shortcut = layers.Activation("relu6", name="clipped")(layers.BatchNormalization()(hidden))
    hidden = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(hidden))
    hidden = layers.SeparableConv2D(4, 3, padding="same", activation="hard_swish")(hidden)
    hidden = layers.Concatenate()([layers.Add()([hidden, shortcut]), hidden + shortcut, hidden * 0.5])
    hidden = layers.Conv2DTranspose(3, 3, activation="relu6")(layers.MaxPooling2D()(hidden))
    hidden = layers.LeakyReLU(0.1)(layers.PReLU(shared_axes=[1, 2])(layers.AveragePooling2D(2)(hidden)))
    hidden = layers.Resizing(8, 8)(layers.UpSampling2D(interpolation="bilinear")(hidden))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(hidden)
    gate = layers.Conv2D(3, 1, activation="hard_sigmoid")(layers.Conv2D(3, 1, activation="silu")(gate))
    hidden = layers.Dropout(0.3)(layers.Flatten()(layers.Multiply()([hidden, gate])))
    inner = keras.Sequential([layers.Dense(5, activation="leaky_relu"), layers.Dense(4)], name="inner")
    hidden = inner(hidden)
    return keras.Model(image, {"b": layers.Dense(2, name="head")(hidden), "a": layers.Softmax(name="aux")(hidden)})


def attention() -> Any:
    ids = keras.Input((6,), dtype="int32", name="ids")
    hidden = layers.Embedding(11, 8)(ids)
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 4)(hidden, hidden))
    hidden = layers.GlobalAveragePooling1D()(layers.Dense(8, activation="gelu")(hidden))
    return keras.Model(ids, layers.Dense(3)(hidden))


def recurrent() -> Any:
    steps = keras.Input((6, 3), name="steps")
    hidden = layers.Bidirectional(layers.GRU(3, return_sequences=True))(layers.LSTM(4, return_sequences=True)(steps))
    hidden = layers.Conv1D(3, 2)(layers.TimeDistributed(layers.Dense(4))(hidden))
    return keras.Model(steps, layers.Dense(3)(layers.SimpleRNN(3)(hidden)))


def shared() -> Any:
    one, other = keras.Input((3,), name="one"), keras.Input((3,), name="other")
    normalization, dense = layers.Normalization(), layers.Dense(3, name="shared")
    normalization.adapt(np.random.default_rng(0).uniform(1, 5, (9, 3)).astype(np.float32))
    difference = layers.Subtract()([dense(one), dense(normalization(other))])
    return keras.Model({"one": one, "other": other}, [difference, layers.Dot(axes=1)([one, other])])


def sequential() -> Any:
    return keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="elu"), layers.GroupNormalization(3)])


@pytest.mark.parametrize("build", [convolutional, attention, recurrent, shared, sequential])
def test_rebuilt_model_has_the_same_weights_under_the_same_keys(build: Callable[[], Any], tmp_path: Path) -> None:
    model = build()
    rebuilt = as_tf_keras(model)
    assert isinstance(rebuilt, tf_keras.Model)
    original, carried = weight_arrays(model), weight_arrays(rebuilt)
    assert original.keys() == carried.keys()
    for key in original:
        np.testing.assert_array_equal(original[key], carried[key])
    write_weights(rebuilt, tmp_path / "w.npz")
    read_weights(model, tmp_path / "w.npz")


def test_outputs_are_the_same_for_other_inputs_than_those_compared() -> None:
    images = np.random.default_rng(5).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    model = convolutional()
    for one, other in zip(models.outputs_of(model, images), models.outputs_of(as_tf_keras(model), images), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_tf_keras_model_is_returned_as_it_is() -> None:
    model = models.dense(tf_keras)
    assert as_tf_keras(model) is model


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda x: keras.ops.relu(x), r"layer 'relu' \(Relu\) cannot be rebuilt in tf_keras.*operation of Keras 3"),
        (lambda x: 2.0 - x, r"'subtract.*' \(Subtract\)"),
        (layers.RMSNormalization(name="rms"), r"layer 'rms' \(RMSNormalization\).*tf_keras has no such layer"),
        (layers.Lambda(lambda x: x, name="code"), r"layer 'code' \(Lambda\).*code of its own"),
        (layers.Dense(2, activation="tanh_shrink", name="d"), r"layer 'd' \(Dense\).*no activation 'tanh_shrink'"),
    ],
)
def test_layer_that_tf_keras_lacks_is_named(layer: Any, message: str) -> None:
    inputs = keras.Input((4,))
    with pytest.raises(ModelError, match=message):
        as_tf_keras(keras.Model(inputs, layer(inputs)))


def test_recurrent_layer_whose_activation_means_something_else_is_named() -> None:
    """Both call it hard_sigmoid; the slopes are 1/6 and 0.2."""
    steps = keras.Input((4, 3))
    layer = layers.LSTM(2, recurrent_activation="hard_sigmoid", name="memory")
    with pytest.raises(ModelError, match=r"layer 'memory' \(LSTM\).*no activation 'hard_sigmoid' of the same meaning"):
        as_tf_keras(keras.Model(steps, layer(steps)))


def test_difference_of_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the libraries disagreed about an activation."""
    monkeypatch.setattr(rebuild, "_SAME_ACTIVATIONS", frozenset({"linear", "hard_sigmoid"}))
    monkeypatch.setattr(rebuild, "_SPECIAL_ACTIVATIONS", {})
    inputs = keras.Input((4,))
    with pytest.raises(ModelError, match=r"another output 'gate' when it is rebuilt in tf_keras: they differ by"):
        as_tf_keras(keras.Model(inputs, layers.Activation("hard_sigmoid", name="gate")(inputs)))


def test_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((4,))
    with pytest.raises(ModelError, match=r"the model 'own' \(Own\) is a subclass"):
        as_tf_keras(keras.Model(inputs, Own(name="own")(inputs)))
