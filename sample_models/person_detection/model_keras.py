"""The MobileNetV1 of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import batch_norm, convolution, dense, depthwise

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels at width 1 and stride of each block."""


@tf_keras.saving.register_keras_serializable("sample_models")
class NearIdentity(tf_keras.initializers.RandomUniform):
    """Let a 3×3 depthwise convolution begin as a copy of its input plus a little noise (after Xiao et al. 2018).

    Why this network needs it stands in ``model_pytorch.py``.
    """

    def __init__(self, minval: float = -0.1, maxval: float = 0.1, seed: int | None = None) -> None:
        super().__init__(minval, maxval, seed)

    def __call__(self, shape: tuple[int, ...], dtype: tf.DType | None = None, **options: object) -> tf.Tensor:
        """Return a kernel ``[3, 3, C, 1]``."""
        centre = tf.reshape(tf.one_hot(4, 9), (3, 3, 1, 1))
        noise = super().__call__(shape, dtype, **options)
        return noise + tf.cast(centre, noise.dtype)


def separable_block(x: tf.Tensor, channels: int, stride: int, *, name: str) -> tf.Tensor:
    """Apply a 3×3 convolution a channel, with the stride, then a 1×1 convolution across channels."""
    x = depthwise(x, 3, stride, initializer=NearIdentity(), name=f"{name}.depthwise")
    x = layers.ReLU(name=f"{name}.relu1")(batch_norm(x, name=f"{name}.norm1"))
    x = batch_norm(convolution(x, channels, 1, name=f"{name}.pointwise"), name=f"{name}.norm2")
    return layers.ReLU(name=f"{name}.relu2")(x)


def build(classes: int = 2, width: float = 0.25) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, 96, 96, 3]`` to scores ``[B, classes]``.

    Args:
        classes: Number of classes.
        width: Multiplier of every layer's channels.
    """
    image = layers.Input((96, 96, 3), name="image")
    x = batch_norm(convolution(image, int(32 * width), 3, 2, name="stem"), name="norm")
    x = layers.ReLU(name="relu")(x)
    for number, (channels, stride) in enumerate(BLOCKS):
        x = separable_block(x, int(channels * width), stride, name=f"blocks.{number}")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, dense(x, classes, name="classifier"), name="person_detection")
