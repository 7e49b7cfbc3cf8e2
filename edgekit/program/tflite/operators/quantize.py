"""Changes of grid and of dtype."""

from __future__ import annotations

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Value

_ATEN = torch.ops.aten


def quantize(call: Call) -> Value:
    """``QUANTIZE``: onto the result's grid, from real numbers or from another grid."""
    source, grid = call.input(0), call.outputs[0].quantization
    if source.constant is not None and grid is not None and grid.axis is None:
        return Value(source.shape, torch.float32, grid, constant=call.emit.integers(source.real(), grid))
    return call.value(*call.emit.as_it_lies(source))


def dequantize(call: Call) -> Value:
    """``DEQUANTIZE``: real numbers; of a float16 or integer constant the weights of a layer that computes in floats."""
    source = call.input(0)
    if source.constant is not None and source.quantization is None:
        return Value(source.shape, torch.float32, constant=source.constant.float())
    if source.constant is not None:
        return source.as_folded()
    return call.emit.value(*call.emit.as_it_lies(source))


def cast(call: Call) -> Value:
    """``CAST``: to the result's dtype."""
    operand, layout = call.emit.as_it_lies(call.input(0))
    return call.value(call.call(_ATEN.to.dtype, operand, call.outputs[0].dtype), layout)


OPERATORS = {"CAST": cast, "DEQUANTIZE": dequantize, "QUANTIZE": quantize}
