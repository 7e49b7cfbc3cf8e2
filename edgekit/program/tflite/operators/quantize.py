"""Changes of grid and of dtype."""

from __future__ import annotations

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Value

_ATEN = torch.ops.aten


def quantize(call: Call) -> Value:
    """``QUANTIZE``: onto the result's grid, from real numbers or from another grid."""
    return call.value(*call.emit.as_it_lies(call.input(0)))


def dequantize(call: Call) -> Value:
    """``DEQUANTIZE``: real numbers; of a float16 or integer constant the weights of a layer that computes in floats."""
    source = call.input(0)
    if source.constant is not None and source.quantization is None:
        return Value(source.shape, torch.float32, constant=source.constant.float())
    if source.constant is not None:
        # An integer weight of a float layer (weight-only quantization) stays folded: the layer dequantizes it itself.
        return WeightOnly.of(source)
    return call.emit.value(*call.emit.as_it_lies(source))


class WeightOnly(Value):
    """A quantized constant behind a ``DEQUANTIZE``: integers in the file, a float layer around it."""

    @classmethod
    def of(cls, source: Value) -> WeightOnly:
        """Wrap a quantized constant."""
        return cls(source.shape, torch.float32, source.quantization, constant=source.constant)


def cast(call: Call) -> Value:
    """``CAST``: to the result's dtype."""
    operand, layout = call.emit.as_it_lies(call.input(0))
    return call.value(call.call(_ATEN.to.dtype, operand, call.outputs[0].dtype), layout)


OPERATORS = {"CAST": cast, "DEQUANTIZE": dequantize, "QUANTIZE": quantize}
