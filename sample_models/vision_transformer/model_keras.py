"""The vision transformer of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tf_keras
from tf_keras import layers

from sample_models.layers_keras import Positions, convolution, dense, layer_norm, transformer_block


def build(
    classes: int = 10, size: int = 32, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4
) -> tf_keras.Model:
    """Build the network, untrained: images ``[B, size, size, 3]`` to scores ``[B, classes]``.

    Args:
        classes: Number of classes.
        size: Height and width of the image; a multiple of ``patch``.
        patch: Height and width of a patch.
        width: Features a token.
        depth: Number of blocks.
        heads: Attention heads.
    """
    image = layers.Input((size, size, 3), name="image")
    x = convolution(image, width, patch, patch, padding=(0, 0), name="patches")
    x = layers.Reshape(((size // patch) ** 2, width), name="tokens")(x)
    x = Positions(name="positions")(x)
    for number in range(depth):
        x = transformer_block(x, heads, 2 * width, name=f"blocks.{number}")
    x = layers.GlobalAveragePooling1D(name="mean")(layer_norm(x, name="norm"))
    return tf_keras.Model(image, dense(x, classes, name="classifier"), name="vision_transformer")
