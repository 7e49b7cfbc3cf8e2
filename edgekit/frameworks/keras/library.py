"""Which of the two Kerases a model belongs to. They share names, not classes."""

from __future__ import annotations

from typing import Any

import keras
import tf_keras

from edgekit.errors import ModelError

__all__ = ["is_model", "library_of"]


def library_of(model: Any) -> Any:
    """Return the module (``keras`` or ``tf_keras``) whose model this is.

    Raises:
        ModelError: It is a model of neither.
    """
    if isinstance(model, tf_keras.Model):
        return tf_keras
    if isinstance(model, keras.Model):
        return keras
    raise ModelError(
        f"expected a model of keras or tf_keras, which can be trained; received {type(model).__name__}. A SavedModel "
        "or a .tflite file can be converted as it is: leave train, prune, cluster and quantization-aware training out."
    )


def is_model(layer: Any) -> bool:
    """Say whether a layer is a model of its own, with layers inside."""
    return isinstance(layer, keras.Model | tf_keras.Model)
