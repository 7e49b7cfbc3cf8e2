"""Batch norms moved into the layer before them, without changing the architecture."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.data.dataset import Array
from edgekit.frameworks.keras.kernels import graph_layers
from edgekit.frameworks.keras.layers import walk_layers

__all__ = ["fold_batch_norms", "freeze_folded", "is_folded"]

_OUTPUT_AXIS = {
    "Dense": -1,
    "Conv1D": -1,
    "Conv2D": -1,
    "Conv3D": -1,
    "SeparableConv1D": -1,
    "SeparableConv2D": -1,
    "Conv1DTranspose": -2,
    "Conv2DTranspose": -2,
    "Conv3DTranspose": -2,
}


def fold_batch_norms(model: Any) -> list[str]:
    """Move the factor of every batch norm that follows a convolution or dense layer into that layer's kernel.

    The batch norm stays in its place and adds a constant: its variance is chosen so that ``variance + epsilon`` is 1
    to the last bit, and a converter that folds it again multiplies by exactly 1. It is frozen, because the statistics
    of a batch would make another function of it.

    Args:
        model: A tf_keras model whose layers are used nowhere else; changed in place.

    Returns:
        Dotted names of the batch norms that were folded.
    """
    folded = []
    for path, norm in graph_layers(model):
        producer = _producer(norm)
        if producer is not None:
            _fold(producer, norm)
            folded.append(path)
    return folded


def is_folded(layer: Any) -> bool:
    """Say whether a layer is a batch norm that multiplies by exactly 1."""
    if type(layer).__name__ != "BatchNormalization":
        return False
    factors = layer.moving_variance.numpy() + np.float32(layer.epsilon)
    scales = np.ones(1) if layer.gamma is None else layer.gamma.numpy()
    return bool((factors == 1).all() and (scales == 1).all())


def freeze_folded(model: Any) -> None:
    """Freeze the folded batch norms of a model, as they must be in every training that follows."""
    for _, layer in walk_layers(model):
        if is_folded(layer):
            layer.trainable = False


def _producer(norm: Any) -> Any:
    """Return the layer whose only consumer is this batch norm, where its factor can move into that layer's kernel."""
    if type(norm).__name__ != "BatchNormalization" or len(norm._inbound_nodes) != 1:
        return None
    layer = norm.input._keras_history.layer
    channels = norm.axis if isinstance(norm.axis, int) else next(iter(norm.axis))
    linear = getattr(getattr(layer, "activation", None), "__name__", "") == "linear"
    known = type(layer).__name__ in _OUTPUT_AXIS and linear and channels in (-1, len(norm.input.shape) - 1)
    return layer if known and len(layer._outbound_nodes) == 1 and len(layer._inbound_nodes) == 1 else None


def _fold(layer: Any, norm: Any) -> None:
    epsilon = np.float32(norm.epsilon)
    gamma = np.float32(1) if norm.gamma is None else norm.gamma.numpy()
    beta = np.float32(0) if norm.beta is None else norm.beta.numpy()
    factor = gamma / np.sqrt(norm.moving_variance.numpy() + epsilon)
    shift = beta - norm.moving_mean.numpy() * factor
    kernel = layer.pointwise_kernel if type(layer).__name__.startswith("Separable") else layer.kernel
    spread = factor if _OUTPUT_AXIS[type(layer).__name__] == -1 else factor[:, np.newaxis]
    kernel.assign(kernel.numpy() * spread)
    if layer.use_bias:
        layer.bias.assign(layer.bias.numpy() * factor + shift)
        shift = np.zeros_like(shift)
    _add_only(norm, shift, epsilon)


def _add_only(norm: Any, shift: Array, epsilon: np.float32) -> None:
    ones = np.ones_like(shift, dtype=np.float32)
    if norm.gamma is not None:
        norm.gamma.assign(ones)
    if norm.beta is not None:
        norm.beta.assign(shift)
        shift = np.zeros_like(shift)
    norm.moving_mean.assign(np.negative(shift.astype(np.float32)))
    norm.moving_variance.assign(ones * _variance_for_one(epsilon))
    norm.trainable = False


def _variance_for_one(epsilon: np.float32) -> np.float32:
    """Return the float32 that gives exactly 1 when ``epsilon`` is added."""
    variance = np.float32(1) - epsilon
    while variance + epsilon != 1:
        variance = np.nextafter(variance, np.float32(2 if variance + epsilon < 1 else 0), dtype=np.float32)
    return np.float32(variance)
