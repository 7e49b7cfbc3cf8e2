"""The MobileNetV3-Small of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import HardSigmoid, HardSwish, batch_norm, convolution, dense, depthwise, rounded
from sample_models.mobilenet_v3_small.blocks import BLOCKS, NORM_EPS


def norm_activation(x: tf.Tensor, hard_swish: bool, *, name: str) -> tf.Tensor:
    """Apply a batch normalization and an activation, the second and the third layer of ``name``."""
    activation = HardSwish if hard_swish else layers.ReLU
    return activation(name=f"{name}.2")(batch_norm(x, epsilon=NORM_EPS, name=f"{name}.1"))


def squeeze_excite(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Scale each channel of ``[B, H, W, C]`` by a gate computed from the means of all (Hu et al. 2018)."""
    channels = x.shape[-1]
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    squeezed = convolution(means, rounded(channels / 4), 1, name=f"{name}.reduce")
    gate = convolution(layers.ReLU(name=f"{name}.relu")(squeezed), channels, 1, name=f"{name}.expand")
    return layers.Multiply(name=f"{name}.scale")([x, HardSigmoid(name=f"{name}.gate")(gate)])


def bottleneck(
    x: tf.Tensor, hidden: int, channels: int, *, kernel: int, stride: int, squeeze: bool, hard_swish: bool, name: str
) -> tf.Tensor:
    """Expand, filter each channel, gate, project; a shortcut where the shape stays.

    Args:
        x: ``[B, H, W, C]``.
        hidden: Channels between expansion and projection.
        channels: Of the output.
        kernel: Of the depthwise convolution.
        stride: Of the depthwise convolution.
        squeeze: Whether channels are gated.
        hard_swish: Whether the first two convolutions have it, else ReLU.
        name: Prefix of the layers' names.
    """
    inputs = x.shape[-1]
    y = x
    if hidden != inputs:
        expanded = convolution(y, hidden, 1, bias=False, name=f"{name}.expand.0")
        y = norm_activation(expanded, hard_swish, name=f"{name}.expand")
    filtered = depthwise(y, kernel, stride, bias=False, name=f"{name}.depthwise.0")
    y = norm_activation(filtered, hard_swish, name=f"{name}.depthwise")
    if squeeze:
        y = squeeze_excite(y, name=f"{name}.squeeze")
    projected = convolution(y, channels, 1, bias=False, name=f"{name}.project.0")
    y = batch_norm(projected, epsilon=NORM_EPS, name=f"{name}.project.1")
    return layers.Add(name=f"{name}.add")([x, y]) if stride == 1 and inputs == channels else y


def build(classes: int = 10, size: int = 96) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, size, size, 3]`` to scores ``[B, classes]``.

    Args:
        classes: Number of classes.
        size: Height and width of the image, a multiple of 32; a Keras model says it, a PyTorch one need not.
    """
    image = layers.Input((size, size, 3), name="image")
    x = norm_activation(convolution(image, 16, 3, 2, bias=False, name="stem.0"), True, name="stem")
    for number, (kernel, hidden, channels, squeeze, hard_swish, stride) in enumerate(BLOCKS):
        x = bottleneck(
            x,
            hidden,
            channels,
            kernel=kernel,
            stride=stride,
            squeeze=squeeze,
            hard_swish=hard_swish,
            name=f"blocks.{number}",
        )
    x = norm_activation(convolution(x, 6 * x.shape[-1], 1, bias=False, name="head.0"), True, name="head")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = HardSwish(name="activation")(dense(x, 1024, name="hidden"))
    return tf_keras.Model(image, dense(x, classes, name="classifier"), name="mobilenet_v3_small")
