"""Quantized activations (``iOS17/quantization_ops.py``)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def along_axis(values: Tensor, rank: int, axis: int) -> Tensor:
    """Spread one value a channel over a tensor of some rank; one value alone is left as it is."""
    if values.numel() == 1:
        return values.reshape([1] * rank)
    return values.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def _parameters(call: Call, rank: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point (0 when not given), spread along ``axis``."""
    axis = call.integer("axis", 0)
    scale = along_axis(call.tensor("scale").float(), rank, axis)
    zero_point = call.maybe("zero_point")
    return scale, along_axis(torch.zeros(1) if zero_point is None else zero_point.float(), rank, axis)


@operation("quantize", since=17, exact=True)
def quantize(call: Call) -> Tensor:
    """``iOS17.quantize``: ``clip(round(input / scale) + zero_point)``, halves to the even neighbour."""
    x = call.tensor("input")
    scale, zero_point = _parameters(call, x.ndim)
    lowest, highest = _LIMITS[call.word("output_dtype", call.dtype())]
    steps = torch.round(x / scale) + zero_point
    return steps.clamp(lowest, highest).to(torch.int8 if lowest else torch.uint8)


@operation("dequantize", since=17)
def dequantize(call: Call) -> Tensor:
    """``iOS17.dequantize``: ``scale (input - zero_point)``."""
    x = call.tensor("input").float()
    scale, zero_point = _parameters(call, x.ndim)
    return (x - zero_point) * scale
