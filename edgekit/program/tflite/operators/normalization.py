"""Normalizations that are operators of their own."""

from __future__ import annotations

import math

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Value

_ATEN = torch.ops.aten
_SMALLEST_NORM = 1e-6
"""As in the runtime's kernels: what a smaller norm is taken for."""


def l2_normalization(call: Call) -> Value:
    """``L2_NORMALIZATION`` over the last axis: ``x / max(|x|, 1e-6)``."""
    source = call.input(0)
    operand, layout = call.emit.as_it_lies(source)
    axis = call.axis(-1, source, layout)
    squares = call.call(_ATEN.mul.Tensor, operand, operand)
    norm = call.call(_ATEN.sqrt.default, call.call(_ATEN.sum.dim_IntList, squares, [axis], True))
    norm = call.call(_ATEN.clamp.default, norm, _SMALLEST_NORM)
    return call.value(call.activated(call.call(_ATEN.div.Tensor, operand, norm)), layout)


def local_response_normalization(call: Call) -> Value:
    """``LOCAL_RESPONSE_NORMALIZATION``: ``x (bias + alpha sum x^2)^-beta`` over neighbouring channels.

    (Krizhevsky et al. 2012, section 3.3; the sum is a pooling along the channels.)
    """
    source, options = call.input(0), call.options
    operand = call.emit.operand(source)
    width = 2 * options.radius + 1
    squares = call.call(_ATEN.mul.Tensor, operand, operand)
    rows = call.call(
        _ATEN.reshape.default,
        squares,
        call.emit.free([source.shape[0], 1, math.prod(source.shape[1:-1]), source.shape[-1]]),
    )
    pooled = call.call(_ATEN.avg_pool2d.default, rows, [1, width], [1, 1], [0, options.radius], False, True)
    sums = call.call(_ATEN.reshape.default, pooled, call.emit.free(list(source.shape)))
    scale: Operand = call.call(_ATEN.add.Tensor, call.call(_ATEN.mul.Tensor, sums, options.alpha * width), options.bias)
    return call.value(call.call(_ATEN.mul.Tensor, operand, call.call(_ATEN.pow.Tensor_Scalar, scale, -options.beta)))


OPERATORS = {
    "L2_NORMALIZATION": l2_normalization,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
}
