"""The residual network for 8×8 images of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import batch_norm, convolution, dense


def residual(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Apply two 3×3 convolutions beside an identity (He et al. 2016, figure 2) to ``[B, H, W, C]``."""
    channels = x.shape[-1]
    y = batch_norm(convolution(x, channels, 3, bias=False, name=f"{name}.conv1"), name=f"{name}.norm1")
    y = layers.ReLU(name=f"{name}.relu1")(y)
    y = batch_norm(convolution(y, channels, 3, bias=False, name=f"{name}.conv2"), name=f"{name}.norm2")
    return layers.ReLU(name=f"{name}.relu2")(layers.Add(name=f"{name}.add")([x, y]))


def conv_norm_relu(x: tf.Tensor, channels: int, stride: int, *, name: str) -> tf.Tensor:
    """Apply a 3×3 convolution, a batch normalization and a ReLU."""
    x = batch_norm(convolution(x, channels, 3, stride, bias=False, name=f"{name}.0"), name=f"{name}.1")
    return layers.ReLU(name=f"{name}.2")(x)


def build(width: int = 16) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, 8, 8, 1]`` to scores of the ten digits ``[B, 10]``.

    Args:
        width: Channels before the stride; twice as many after it.
    """
    image = layers.Input((8, 8, 1), name="image")
    x = residual(conv_norm_relu(image, width, 1, name="stem"), name="block1")
    x = residual(conv_norm_relu(x, 2 * width, 2, name="down"), name="block2")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, dense(x, 10, name="classifier"), name="digits")
