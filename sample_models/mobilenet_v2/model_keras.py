"""The MobileNetV2 of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import batch_norm, convolution, dense, depthwise, rounded

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels at width 1, number of blocks, stride of the first."""


def norm_relu6(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Apply a batch normalization and a ReLU6, the second and the third layer of ``name``."""
    return layers.ReLU(6.0, name=f"{name}.2")(batch_norm(x, name=f"{name}.1"))


def inverted_residual(x: tf.Tensor, channels: int, stride: int, expansion: int, *, name: str) -> tf.Tensor:
    """Expand, filter each channel, project without an activation; a shortcut where the shape stays.

    Args:
        x: ``[B, H, W, C]``.
        channels: Of the output.
        stride: Of the depthwise convolution.
        expansion: Hidden channels an input channel.
        name: Prefix of the layers' names.
    """
    inputs = x.shape[-1]
    y = x
    if expansion != 1:
        expanded = convolution(y, inputs * expansion, 1, bias=False, name=f"{name}.expand.0")
        y = norm_relu6(expanded, name=f"{name}.expand")
    y = norm_relu6(depthwise(y, 3, stride, bias=False, name=f"{name}.depthwise.0"), name=f"{name}.depthwise")
    projected = convolution(y, channels, 1, bias=False, name=f"{name}.project.0")
    y = batch_norm(projected, name=f"{name}.project.1")
    return layers.Add(name=f"{name}.add")([x, y]) if stride == 1 and inputs == channels else y


def build(classes: int = 10, width: float = 1.0, dropout: float = 0.0, size: int = 96) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, size, size, 3]`` to scores ``[B, classes]``.

    Args:
        classes: Number of classes.
        width: Multiplier of every layer's channels; the head's 1280 only grow.
        dropout: Before the classifier, in training.
        size: Height and width of the image, a multiple of 32; a Keras model says it, a PyTorch one need not.
    """
    image = layers.Input((size, size, 3), name="image")
    x = norm_relu6(convolution(image, rounded(32 * width), 3, 2, bias=False, name="stem.0"), name="stem")
    number = 0
    for expansion, channels, count, first_stride in STAGES:
        for stride in (first_stride, *(1,) * (count - 1)):
            x = inverted_residual(x, rounded(channels * width), stride, expansion, name=f"blocks.{number}")
            number += 1
    x = norm_relu6(convolution(x, rounded(1280 * max(1.0, width)), 1, bias=False, name="head.0"), name="head")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return tf_keras.Model(image, dense(x, classes, name="classifier"), name="mobilenet_v2")
