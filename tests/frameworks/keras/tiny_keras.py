"""Models (with the datasets of all frameworks) small enough to train in a second, in both Kerases."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tiny_datasets import CLASSES as CLASSES
from tiny_datasets import SAMPLES as SAMPLES
from tiny_datasets import dataset_of as dataset_of
from tiny_datasets import images as images
from tiny_datasets import vectors as vectors

from edgekit.data.dataset import Dataset
from edgekit.frameworks.keras.evaluate import evaluate
from edgekit.frameworks.keras.fit import fit_epochs
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.runner import input_specs
from edgekit.frameworks.keras.strategy import clone, open_strategy, place
from edgekit.recipe.schema import TrainSection
from edgekit.records import EpochMetrics, TensorSpec

LIBRARIES: dict[str, Any] = {"keras": keras, "tf_keras": tf_keras}


def perceptron(library: str = "tf_keras", seed: int = 0, softmax: bool = False) -> Any:
    """With dropout, so that a wrong random state shows."""
    made = LIBRARIES[library]
    made.utils.set_random_seed(seed)
    layers = made.layers
    parts = [
        layers.Input((8,)),
        layers.Dense(32, name="first"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.Dropout(0.2, name="drop"),
        layers.Dense(CLASSES, name="last", activation="softmax" if softmax else None),
    ]
    return made.Sequential(parts, name="perceptron")


def plain_perceptron(library: str = "tf_keras", seed: int = 0) -> Any:
    """Without batch norm and dropout, which see each device's share of a batch only."""
    made = LIBRARIES[library]
    made.utils.set_random_seed(seed)
    layers = made.layers
    parts = [
        layers.Input((8,)),
        layers.Dense(32, activation="relu", name="first"),
        layers.Dense(CLASSES, name="last"),
    ]
    return made.Sequential(parts, name="plain")


def unseeded(library: str = "tf_keras") -> Any:
    """Draws its weights from wherever the generator stands, as nearly every model does."""
    layers = LIBRARIES[library].layers
    return LIBRARIES[library].Sequential([layers.Input((8,)), layers.Dense(CLASSES)])


def two_classes() -> Any:
    """Too narrow for the data."""
    return tf_keras.Sequential([tf_keras.layers.Input((8,)), tf_keras.layers.Dense(2)])


def convolutions(library: str = "tf_keras", seed: int = 0) -> Any:
    made = LIBRARIES[library]
    made.utils.set_random_seed(seed)
    layers = made.layers
    inputs = made.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.Conv2D(16, 1, name="point")(x)
    x = layers.ReLU(name="relu3")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return made.Model(inputs, layers.Dense(CLASSES, name="head")(x), name="convolutions")


def settings(**changes: object) -> TrainSection:
    return TrainSection(**{"epochs": 3, "batch_size": 32, "lr": 1e-2, "device": "cpu", **changes})  # type: ignore[arg-type]


def specs_of(model: Any) -> tuple[TensorSpec, ...]:
    return input_specs(Source("tf_keras" if isinstance(model, tf_keras.Model) else "keras", model, None))


def fit(model: Any, data: Dataset, how: TrainSection, **options: Any) -> tuple[EpochMetrics, ...]:
    """Train in place, on this machine's CPU."""
    placement = place(how)
    strategy = open_strategy(placement)
    work = model if placement.plain else clone(model, policy=placement.policy, strategy=strategy)
    specs = specs_of(model)
    found = fit_epochs(work, data, how, specs=specs, placement=placement, strategy=strategy, **options)
    if work is not model:
        model.set_weights(work.get_weights())
    return found


def accuracy(model: Any, data: Dataset) -> float:
    return evaluate(model, data.test, specs_of(model), layout=data.layout)


def same_weights(first: Any, second: Any) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def weight(model: Any, layer: str) -> np.ndarray:
    return model.get_layer(layer).kernel.numpy()


def always_zero(outputs: Any, labels: Any) -> Any:
    """A loss of a user's own that teaches nothing."""
    return tf.reduce_sum(outputs) * 0.0 + 0.5


def exploding(outputs: Any, labels: Any) -> Any:
    """A loss that becomes NaN as soon as the weights have moved towards it."""
    return tf.math.log(tf.reduce_sum(outputs) * 0.0 - 1.0)
