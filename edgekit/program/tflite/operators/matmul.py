"""Fully connected layers and batched matrix products."""

from __future__ import annotations

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Value
from edgekit.program.tflite.operators.convolution import held_bias
from edgekit.program.tflite.operators.dynamic import is_hybrid, on_dynamic_grid
from edgekit.program.tflite.operators.shape import sizes_of
from edgekit.program.tflite.operators.weights import weight

_ATEN = torch.ops.aten


def fully_connected(call: Call) -> Value:
    """``FULLY_CONNECTED``: weights ``[out, in]``; without ``keep_num_dims`` the input is flattened to ``[B, in]``."""
    source, weights = call.input(0), call.input(1)
    features = weights.shape[-1]
    rows = call.emit.flat(source) if not call.options.keepNumDims else call.emit.operand(source)
    if not call.options.keepNumDims and source.shape != (source.shape[0], features):
        rows = call.requantized(call.call(_ATEN.reshape.default, rows, [-1, features]), source.quantization)
    if is_hybrid(source, weights):
        rows = on_dynamic_grid(call, rows)
    bias = call.optional(2)
    result = call.call(
        _ATEN.linear.default, rows, _weights(call, weights), None if bias is None else held_bias(call, bias)
    )
    return call.value(call.activated(result))


def _weights(call: Call, weights: Value) -> Operand:
    if weights.constant is None:
        return call.emit.operand(weights)
    return weight(call, weights, (0, 1), 0)


def batch_matmul(call: Call) -> Value:
    """``BATCH_MATMUL``: the last two axes, either operand turned first where the options say so."""
    left, right = call.operand(0), call.operand(1)
    if call.options.adjX:
        left = call.requantized(call.call(_ATEN.transpose.int, left, -2, -1), call.input(0).quantization)
    if call.options.adjY:
        right = call.requantized(call.call(_ATEN.transpose.int, right, -2, -1), call.input(1).quantization)
    return call.value(_product(call, left, right))


def _product(call: Call, left: Operand, right: Operand) -> Operand:
    """Multiply stacks of matrices; where they are stacked alike, as one stack, which delegates take as it is."""
    grids = [call.input(place).quantization for place in range(2)]
    sizes = [sizes_of(operand) for operand in (left, right)]
    if sizes[0][:-2] != sizes[1][:-2] or len(sizes[0]) < 3:
        return call.call(_ATEN.matmul.default, left, right)  # type: ignore[no-any-return]
    if len(sizes[0]) == 3:
        return call.call(_ATEN.bmm.default, left, right)  # type: ignore[no-any-return]
    stacked = [
        call.requantized(call.call(_ATEN.reshape.default, operand, [-1, *shape[-2:]]), grid)
        for operand, shape, grid in zip((left, right), sizes, grids, strict=True)
    ]
    product = call.requantized(call.call(_ATEN.bmm.default, *stacked), call.outputs[0].quantization)
    final = call.emit.free([*sizes[0][:-1], sizes[1][-1]])
    return call.call(_ATEN.reshape.default, product, final)  # type: ignore[no-any-return]


OPERATORS = {"BATCH_MATMUL": batch_matmul, "FULLY_CONNECTED": fully_connected}
