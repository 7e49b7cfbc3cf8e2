"""The transformer encoder of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tf_keras import layers

from sample_models.layers_keras import Positions, dense, layer_norm, transformer_block

HIDDEN_SCORE = -50.0
"""Added to the attention scores of padding: its weight is below 1e-20 of a real token's, which no float32 sum shows.

PyTorch's twin says -1e4 and its quantizer leaves that sum in floating point. TensorFlow's converter quantizes every
sum: with -1e4 the 256 steps of int8 were 39 apart, and the accuracy fell from 90 % to 37 %; with -50 it stayed.
"""


@tf_keras.saving.register_keras_serializable("sample_models")
class MaskedMean(layers.Layer):
    """Mean over the real tokens of a sentence."""

    def call(self, pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Map tokens ``[B, T, width]`` and a mask ``[B, T]``, 1 for real tokens, to ``[B, width]``."""
        tokens, mask = pair
        weights = tf.cast(mask, tokens.dtype)[:, :, None]
        return tf.reduce_sum(tokens * weights, 1) / tf.maximum(tf.reduce_sum(weights, 1), 1.0)


def build(
    vocabulary: int = 64, length: int = 24, classes: int = 3, width: int = 48, depth: int = 2, heads: int = 4
) -> tf_keras.Model:
    """Build the network, untrained: ids and mask, int32 ``[B, length]`` each, to scores ``[B, classes]``.

    Args:
        vocabulary: Number of token ids; must fit the data.
        length: Tokens a sentence, padding included; must fit the data.
        classes: Number of classes.
        width: Features a token.
        depth: Number of blocks.
        heads: Attention heads.
    """
    ids = layers.Input((length,), dtype="int32", name="ids")
    mask = layers.Input((length,), dtype="int32", name="mask")
    bias = layers.Rescaling(-HIDDEN_SCORE, HIDDEN_SCORE, name="bias")(mask)  # 0 for tokens, HIDDEN_SCORE for padding
    bias = layers.Reshape((1, 1, length), name="bias.spread")(bias)
    start = tf_keras.initializers.RandomNormal(stddev=1.0)
    x = layers.Embedding(vocabulary, width, embeddings_initializer=start, name="embedding")(ids)
    x = Positions(name="positions")(x)
    for number in range(depth):
        x = transformer_block(x, heads, 2 * width, bias, name=f"blocks.{number}")
    x = MaskedMean(name="mean")([layer_norm(x, name="norm"), mask])
    return tf_keras.Model([ids, mask], dense(x, classes, name="classifier"), name="text_classifier")
