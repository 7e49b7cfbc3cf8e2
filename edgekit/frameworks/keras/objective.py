"""What training minimises and what it is judged by: losses, accuracy, and whether outputs are logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.errors import DataError, ModelError
from edgekit.frameworks.training import load_loss
from edgekit.recipe.schema import TrainSection

__all__ = [
    "Loss",
    "as_float",
    "as_logits",
    "count_correct",
    "gives_probabilities",
    "make_loss",
    "output_width",
    "primary_output",
]

Loss = Callable[[Any, Any], Any]
"""``(outputs, labels) -> scalar``, the mean over the batch."""

SMALLEST_PROBABILITY = 1e-7
"""Below it the logarithm is not taken; Keras's own epsilon."""


def primary_output(outputs: Any) -> Any:
    """Return the output that losses and accuracy look at: the first one, as float32.

    Raises:
        ModelError: There is no tensor in it.
    """
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str) and len(outputs):
        return primary_output(outputs[0])
    if not hasattr(outputs, "dtype") or not hasattr(outputs, "shape"):
        raise ModelError(
            "expected the model to return a tensor, or a sequence or mapping of tensors; received "
            f"{type(outputs).__name__}"
        )
    return as_float(tf.convert_to_tensor(outputs))


def as_float(tensor: Any) -> Any:
    """Return a 16-bit float tensor as float32, and any other as it is."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.bfloat16, tf.float16) else tensor


def gives_probabilities(outputs: Any) -> bool:
    """Say whether a model's first output is a softmax rather than logits, which the other framework's models return.

    Told by the numbers, not by the last layer: the softmax may sit inside it, or in a model within the model.
    """
    found = np.asarray(primary_output(outputs))
    return found.ndim >= 2 and bool((found >= 0).all()) and bool(np.allclose(found.sum(axis=-1), 1.0, atol=1e-3))


def as_logits(output: Any, probabilities: bool) -> Any:
    """Return logits; the logarithm of a softmax is the same up to a constant, which no softmax sees."""
    return tf.math.log(tf.maximum(output, SMALLEST_PROBABILITY)) if probabilities else output


def make_loss(settings: TrainSection, *, probabilities: bool) -> Loss:
    """Return the loss that the settings name.

    ``cross_entropy`` (with label smoothing) and ``mse`` read the model's first output; a loss of the user's own,
    ``package.module:callable``, receives the outputs whole.

    Args:
        settings: Loss and label smoothing.
        probabilities: Whether the first output is a softmax already.

    Raises:
        RecipeError: The name is neither, or there is no such callable.
    """
    if settings.loss == "cross_entropy":
        return lambda outputs, labels: _cross_entropy(
            as_logits(primary_output(outputs), probabilities), labels, settings.label_smoothing
        )
    if settings.loss == "mse":
        return _mean_squared_error
    return load_loss(settings.loss)


def _cross_entropy(logits: Any, labels: Any, smoothing: float) -> Any:
    """Of dense targets: TensorFlow's sparse kernel has no deterministic gradient on a GPU."""
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes, on_value=1.0 - smoothing + smoothing / classes, off_value=smoothing / classes)
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))


def _mean_squared_error(outputs: Any, labels: Any) -> Any:
    predicted = primary_output(outputs)
    shapes = [tuple(tensor.shape[1:]) for tensor in (predicted, labels)]
    if shapes[0] != shapes[1] and np.prod(shapes[0], dtype=int) == np.prod(shapes[1], dtype=int):
        labels = tf.reshape(labels, tf.shape(predicted))  # [B] targets for a [B, 1] output must not broadcast to [B, B]
    elif shapes[0] != shapes[1]:
        raise DataError(
            f"train.loss mse: expected targets of the output's shape {tuple(predicted.shape)}; "
            f"received {tuple(labels.shape)}"
        )
    return tf.reduce_mean(tf.math.squared_difference(predicted, tf.cast(labels, predicted.dtype)))


def count_correct(outputs: Any, labels: Any) -> Any:
    """Count samples whose highest class is their label.

    Args:
        outputs: First output ``[B, C]`` (or ``[B, ..., C]`` with labels ``[B, ...]``, where elements are counted).
        labels: int64.

    Returns:
        A scalar int64 tensor.
    """
    found = tf.argmax(primary_output(outputs), axis=-1, output_type=tf.int64)
    return tf.reduce_sum(tf.cast(found == labels, tf.int64))


def output_width(outputs: Any) -> int:
    """Return the number of classes of a model's first output ``[B, ..., C]``.

    Raises:
        ModelError: The output has no class dimension.
    """
    output = primary_output(outputs)
    if len(output.shape) < 2 or not output.dtype.is_floating:
        raise ModelError(
            "expected a floating-point output [batch, classes] to train with cross_entropy; received "
            f"{output.dtype.name} of shape {tuple(output.shape)}. Return the logits, or choose another train.loss."
        )
    return int(output.shape[-1])
