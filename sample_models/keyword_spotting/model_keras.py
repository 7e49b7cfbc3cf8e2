"""The DS-CNN of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import batch_norm, convolution, dense, depthwise


def separable_block(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Apply a 3×3 convolution a channel, then a 1×1 convolution across channels, to ``[B, H, W, C]``."""
    channels = x.shape[-1]
    x = batch_norm(depthwise(x, 3, name=f"{name}.depthwise"), name=f"{name}.norm1")
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = batch_norm(convolution(x, channels, 1, name=f"{name}.pointwise"), name=f"{name}.norm2")
    return layers.ReLU(name=f"{name}.relu2")(x)


def build(classes: int = 12, channels: int = 64, blocks: int = 4) -> tf_keras.Model:
    """Build the network, untrained: MFCCs ``[B, 49, 10, 1]`` (time, coefficient) to scores ``[B, classes]``.

    Args:
        classes: Number of keywords, silence and unknown included.
        channels: Of every layer.
        blocks: Number of separable blocks.
    """
    mfcc = layers.Input((49, 10, 1), name="mfcc")
    x = batch_norm(convolution(mfcc, channels, (10, 4), 2, padding=(5, 1), name="stem"), name="norm")
    x = layers.ReLU(name="relu")(x)
    for number in range(blocks):
        x = separable_block(x, name=f"blocks.{number}")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(mfcc, dense(x, classes, name="classifier"), name="keyword_spotting")
