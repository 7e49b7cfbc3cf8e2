"""The ranges of activations in quantization-aware training: where they start, how they move, when they stand still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edgekit.data.dataset import Array
from edgekit.frameworks.keras.evaluate import call_model
from edgekit.frameworks.keras.layers import walk_layers
from edgekit.frameworks.keras.optimization import quant_ops, quantize_layer, quantizers

__all__ = ["ActivationRanges", "refresh_weight_ranges"]

DECAY = 0.99
"""Of the moving average; PyTorch's observers have the same."""


class _MovingRange(quantizers.MovingAverageQuantizer):
    """A moving average whose speed can be set; the library's is fixed at 0.999."""

    def __init__(self, former: Any, decay: Any) -> None:
        super().__init__(former.num_bits, former.per_axis, former.symmetric, former.narrow_range)
        self._decay = decay

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - its signature
        return quant_ops.MovingAvgQuantize(
            inputs,
            weights["min_var"],
            weights["max_var"],
            ema_decay=self._decay,
            is_training=training,
            num_bits=self.num_bits,
            per_channel=self.per_axis,
            symmetric=self.symmetric,
            narrow_range=self.narrow_range,
        )


class ActivationRanges:
    """Sets how the ranges of a model's activations move.

    TensorFlow Model Optimization starts every range at -6 to 6 and moves it by a thousandth a step, which takes
    thousands of steps to arrive: more than a short fine-tuning has.

    Args:
        model: With fake quantization. :meth:`release` puts its own quantizers back.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._decay = tf.Variable(DECAY, trainable=False, dtype=tf.float32)
        self._former: list[tuple[Callable[[Any], None], Any]] = []
        for _, layer in walk_layers(model):
            if isinstance(layer, quantize_layer.QuantizeLayer) and layer.quantizer is not None:
                self._replace(layer.quantizer, _setter(layer, "quantizer"))
            for activation in getattr(layer, "_quantize_activations", ()):
                self._replace(activation.quantizer, _setter(activation, "quantizer"))
            for quantizer in list(getattr(layer, "_output_quantizers", None) or ())[:1]:
                self._replace(quantizer, _list_setter(layer, "_output_quantizers"))

    def start_from(self, inputs: Sequence[Array]) -> None:
        """Set every range to what these inputs reach, without touching the statistics of batch norms.

        Args:
            inputs: As the model takes them.
        """
        norms = [layer for _, layer in walk_layers(self._model) if type(layer).__name__ == "BatchNormalization"]
        former = [layer.trainable for layer in norms]
        self._decay.assign(0.0)
        for layer in norms:
            layer.trainable = False
        call_model(self._model, [tf.constant(array) for array in inputs], training=True)
        for layer, trainable in zip(norms, former, strict=True):
            layer.trainable = trainable
        self._decay.assign(DECAY)

    def move(self, moving: bool) -> None:
        """Let the ranges follow the data, or hold them where they are."""
        self._decay.assign(DECAY if moving else 1.0)

    def release(self) -> None:
        """Give the model its own quantizers back; the ranges stay."""
        for put_back, quantizer in self._former:
            put_back(quantizer)

    def _replace(self, quantizer: Any, put: Callable[[Any], None]) -> None:
        if isinstance(quantizer, quantizers.MovingAverageQuantizer):
            self._former.append((put, quantizer))
            put(_MovingRange(quantizer, self._decay))


def refresh_weight_ranges(model: Any) -> None:
    """Take the ranges of weights from the weights as they are: after the last optimizer step nobody has.

    Clustered weights are taken from their shared values once more by the same call.
    """
    for _, layer in walk_layers(model):
        for weight, quantizer, variables in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=variables)


def _setter(owner: Any, name: str) -> Callable[[Any], None]:
    return lambda value: setattr(owner, name, value)


def _list_setter(owner: Any, name: str) -> Callable[[Any], None]:
    return lambda value: setattr(owner, name, [value])
