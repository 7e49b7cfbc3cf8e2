"""The recurrent network of ``model_pytorch.py``, layer for layer, in Keras."""

from __future__ import annotations

import tf_keras
from tf_keras import layers

from sample_models.layers_keras import dense, uniform


def build(channels: int = 3, classes: int = 5, hidden: int = 48, steps: int = 32) -> tf_keras.Model:
    """Build the network, untrained: sequences ``[B, steps, channels]`` to scores ``[B, classes]``.

    Args:
        channels: Readings a step.
        classes: Number of classes.
        hidden: Size of the state.
        steps: Length of a sequence; a Keras model says it, a PyTorch one need not.
    """
    sequence = layers.Input((steps, channels), name="sequence")
    # reset_after: the reset gate scales the state after its product with the weights, as PyTorch and cuDNN do.
    # unroll: a loop would become TFLite's WHILE, which no other format takes; the PyTorch model is unrolled there too.
    state = layers.GRU(
        hidden,
        reset_after=True,
        unroll=True,
        kernel_initializer=uniform(hidden),
        recurrent_initializer=uniform(hidden),
        bias_initializer=uniform(hidden),
        name="gru",
    )(sequence)
    return tf_keras.Model(sequence, dense(state, classes, name="classifier"), name="gru_sequence")
