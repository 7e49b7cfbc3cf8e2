"""Hybrid operators: integer weights, activations quantized at run time."""

from __future__ import annotations

import operator

import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Value

_OPS = torch.ops.quantized_decomposed
_LOW, _HIGH = -128, 127
_EPSILON = 2.0**-12
"""Smallest step of activations, as in ExecuTorch's configuration of dynamic quantization."""


def is_hybrid(source: Value, weight: Value) -> bool:
    """Whether a layer has integer weights and real activations, which its kernel quantizes at run time."""
    return source.quantization is None and weight.quantization is not None and not weight.folded


def on_dynamic_grid(call: Call, source: Operand) -> Operand:
    """Quantize and dequantize with scales that are chosen from the value itself.

    The pattern that PT2E writes for dynamic quantization and that delegates turn into their own operation.
    """
    if isinstance(source, Tensor):
        return source
    chosen = call.call(_OPS.choose_qparams.tensor, source, _LOW, _HIGH, _EPSILON, torch.int8)
    scale, point = call.call(operator.getitem, chosen, 0), call.call(operator.getitem, chosen, 1)
    integers = call.call(_OPS.quantize_per_tensor.tensor, source, scale, point, _LOW, _HIGH, torch.int8)
    result: Operand = call.call(_OPS.dequantize_per_tensor.tensor, integers, scale, point, _LOW, _HIGH, torch.int8)
    return result
