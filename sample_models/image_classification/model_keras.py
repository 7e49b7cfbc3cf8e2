"""The ResNet8 of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import batch_norm, convolution, dense


def stack(x: tf.Tensor, channels: int, stride: int, *, name: str) -> tf.Tensor:
    """Apply two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.

    Args:
        x: ``[B, H, W, C]``.
        channels: Of the output.
        stride: Of the first convolution and of the shortcut.
        name: Prefix of the layers' names.
    """
    y = batch_norm(convolution(x, channels, 3, stride, name=f"{name}.conv1"), name=f"{name}.norm1")
    y = layers.ReLU(name=f"{name}.relu1")(y)
    y = batch_norm(convolution(y, channels, 3, name=f"{name}.conv2"), name=f"{name}.norm2")
    if stride != 1 or x.shape[-1] != channels:
        x = convolution(x, channels, 1, stride, name=f"{name}.shortcut")
    return layers.ReLU(name=f"{name}.relu2")(layers.Add(name=f"{name}.add")([x, y]))


def build(classes: int = 10, width: int = 16) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, 32, 32, 3]`` to scores ``[B, classes]``.

    Args:
        classes: Number of classes.
        width: Channels of the first stack; doubled in each of the next.
    """
    image = layers.Input((32, 32, 3), name="image")
    x = batch_norm(convolution(image, width, 3, name="stem"), name="norm")
    x = layers.ReLU(name="relu")(x)
    x = stack(x, width, 1, name="stack1")
    x = stack(x, 2 * width, 2, name="stack2")
    x = stack(x, 4 * width, 2, name="stack3")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, dense(x, classes, name="classifier"), name="image_classification")
