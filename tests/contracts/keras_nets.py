"""The tiny models of :mod:`contracts.tiny_programs` once more, in Keras, with the data that feed them.

Images are NHWC, tokens int32, and no output lacks the batch: what Keras's users write.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from edgekit.data.dataset import Array, ArraySplit, Dataset

SAMPLES, CALIBRATION = 8, 64


def cnn() -> Any:
    """As :class:`~contracts.tiny_programs.Cnn`."""
    layers = _seeded()
    image = keras.Input((16, 16, 3), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(12, 3, 2, "same", name="stem")(image))
    x = layers.ReLU(6.0, name="relu6")(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = layers.ReLU(name="relu_sum")(layers.Add(name="sum")([x, layers.Conv2D(12, 3, padding="same", name="side")(x)]))
    x = layers.Dense(96, "relu", name="wide")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(5, name="logits")(x))


def attention() -> Any:
    """As :class:`~contracts.tiny_programs.Attention`."""
    layers = _seeded()
    tokens = keras.Input((8,), dtype="int32", name="tokens")
    mask = keras.Input((8,), dtype="bool", name="mask")
    x = layers.Embedding(50, 16, name="embed")(tokens)
    query, key, value = (layers.Dense(16, name=name)(x) for name in ("query", "key", "value"))
    scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1))) / 4.0
    scores = scores + keras.ops.where(keras.ops.expand_dims(mask, 1), 0.0, -1e4)
    x = layers.LayerNormalization(name="norm")(x + keras.ops.matmul(keras.ops.softmax(scores), value))
    return keras.Model([tokens, mask], layers.Dense(3, name="logits")(keras.ops.mean(x, axis=1)))


def two_heads() -> Any:
    """As :class:`~contracts.tiny_programs.TwoHeads`, but that each sample has a total of its own."""
    layers = _seeded()
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    hidden = layers.ReLU(name="relu")(layers.Dense(8, name="of_left")(left) + layers.Dense(8, name="of_right")(right))
    outputs = {"scores": layers.Dense(3, name="scores")(hidden), "total": keras.ops.sum(hidden, axis=1)}
    return keras.Model([left, right], outputs)


def recurrent() -> Any:
    """As :class:`~contracts.tiny_programs.Recurrent`."""
    layers = _seeded()
    sequence = keras.Input((6, 4), name="sequence")
    return keras.Model(sequence, layers.Dense(3, name="logits")(layers.GRU(8, name="gru")(sequence)))


def data(model: str) -> Dataset:
    """Return the samples of a model: of the train split it is calibrated, of the others verified."""
    draw = {
        "cnn": _normal((16, 16, 3)),
        "attention": _tokens,
        "two_heads": _normal((6,), (4,)),
        "recurrent": _normal((6, 4)),
    }[model]
    train, held_out = (
        ArraySplit(draw(count, np.random.default_rng(count)), np.zeros(count, np.int64))
        for count in (CALIBRATION, SAMPLES)
    )
    return Dataset(train=train, validation=held_out, test=held_out, layout="NHWC" if model == "cnn" else None)


def _seeded() -> Any:
    keras.utils.set_random_seed(1)
    return keras.layers


def _normal(*shapes: tuple[int, ...]) -> Any:
    return lambda count, random: tuple(random.normal(size=(count, *shape)).astype(np.float32) for shape in shapes)


def _tokens(count: int, random: np.random.Generator) -> tuple[Array, ...]:
    lengths = random.integers(3, 9, (count, 1))
    return random.integers(0, 50, (count, 8)).astype(np.int32), np.arange(8)[None] < lengths
