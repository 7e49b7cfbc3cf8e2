"""Activations as operators of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Value

_ATEN = torch.ops.aten


def _activation(target: Callable[..., Any], *arguments: Any) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        (operand,), layout = call.emit.aligned([call.input(0)])
        return call.value(call.call(target, operand, *arguments), layout)

    return translate


def _elu(call: Call) -> Value:
    """``max(x, 0) + exp(min(x, 0)) - 1``, of operations that delegates take (XNNPACK's ELU is not lowered to)."""
    (operand,), layout = call.emit.aligned([call.input(0)])
    positive = call.call(_ATEN.relu.default, operand)
    negative = call.call(_ATEN.exp.default, call.call(_ATEN.sub.Tensor, operand, positive))
    one = call.emit.held(torch.ones(1), "one")
    return call.value(call.call(_ATEN.add.Tensor, positive, call.call(_ATEN.sub.Tensor, negative, one)), layout)


def _hard_swish(call: Call) -> Value:
    """``x * relu6(x + 3) / 6`` (Howard et al. 2019, section 5.2)."""
    (operand,), layout = call.emit.aligned([call.input(0)])
    return call.value(call.call(_ATEN.hardswish.default, operand), layout)


def _leaky_relu(call: Call) -> Value:
    (operand,), layout = call.emit.aligned([call.input(0)])
    return call.value(call.call(_ATEN.leaky_relu.default, operand, float(call.options.alpha)), layout)


def _prelu(call: Call) -> Value:
    """``PRELU``: slopes for each channel (or for less or more), ``max(x, 0) + a min(x, 0)``."""
    source, slopes = call.input(0), call.input(1)
    if slopes.constant is not None and slopes.constant.numel() == slopes.shape[-1] and source.rank == 4:
        image = call.emit.operand(source, "channels-first")
        # Slopes are real numbers also where the file quantizes them: delegates take no computed slopes.
        held = call.emit.held(slopes.real().reshape(-1), f"{call.label}.slope")
        return call.value(call.call(_ATEN.prelu.default, image, held), "channels-first")
    (operand, slope), layout = call.emit.aligned([source, slopes])
    positive = call.call(_ATEN.relu.default, operand)
    negative = call.call(_ATEN.sub.Tensor, operand, positive)
    return call.value(call.call(_ATEN.add.Tensor, positive, call.call(_ATEN.mul.Tensor, negative, slope)), layout)


def _gelu(call: Call) -> Value:
    (operand,), layout = call.emit.aligned([call.input(0)])
    kind = "tanh" if call.options is not None and call.options.approximate else "none"
    return call.value(call.call(_ATEN.gelu.default, operand, approximate=kind), layout)


def _softmax(call: Call) -> Value:
    """``SOFTMAX`` over the last axis of ``beta * x``."""
    source = call.input(0)
    operand, layout = call.emit.as_it_lies(source)
    beta = float(call.options.beta)
    if beta != 1.0:
        operand = call.call(_ATEN.mul.Tensor, operand, beta)
    return call.value(call.call(_ATEN.softmax.int, operand, call.axis(-1, source, layout)), layout)


def _log_softmax(call: Call) -> Value:
    source = call.input(0)
    return call.value(call.call(_ATEN.log_softmax.int, call.emit.operand(source), source.rank - 1))


OPERATORS = {
    "ELU": _elu,
    "GELU": _gelu,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _activation(_ATEN.sigmoid.default),
    "LOG_SOFTMAX": _log_softmax,
    "PRELU": _prelu,
    "RELU": _activation(_ATEN.relu.default),
    "RELU6": _activation(_ATEN.hardtanh.default, 0.0, 6.0),
    "RELU_0_TO_1": _activation(_ATEN.hardtanh.default, 0.0, 1.0),
    "RELU_N1_TO_1": _activation(_ATEN.hardtanh.default, -1.0, 1.0),
    "SOFTMAX": _softmax,
    "TANH": _activation(_ATEN.tanh.default),
}
