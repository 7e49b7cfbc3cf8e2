"""Convolutions (``iOS15/conv.py``, ``iOS17/conv.py``)."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.operations.padding import Pads, halves, is_symmetric, pad_last, window_pads
from edgekit.formats.coreml.evaluator.registry import Call, operation

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


@operation("conv")
def conv(call: Call) -> Tensor:
    """``iOS15.conv``, ``iOS17.conv``: 1 to 3 spatial dimensions, weight ``[C_out, C_in / groups, *K]``.

    ``same`` and ``same_lower`` pad asymmetrically where the total is odd. From iOS17 on, weight and bias may have
    another dtype than ``x``; the result has that of ``x``.
    """
    return _convolve(call, call.tensor("weight").float())


@operation("conv_quantized")
def conv_quantized(call: Call) -> Tensor:
    """``iOS15.conv_quantized``: ``W = W_quantized * quant_scale + quant_bias``, then ``conv``.

    Experimental in coremltools, which does not write it into ML programs. Only ``quantization_type`` ``linear``.
    """
    if call.word("quantization_type") != "linear":
        raise call.refuse("quantization_type linear", call.word("quantization_type"))
    weight = call.tensor("weight").float()
    shape = [-1, *([1] * (weight.ndim - 1))]
    scale, bias = (call.tensor(name).float().reshape(shape) for name in ("quant_scale", "quant_bias"))
    return _convolve(call, weight * scale + bias)


def _convolve(call: Call, weight: Tensor) -> Tensor:
    x = call.tensor().float()
    rank = weight.ndim - 2
    strides = call.integers("strides", [1] * rank)
    dilations = call.integers("dilations", [1] * rank)
    pads = window_pads(call, x.shape[2:], weight.shape[2:], strides, dilations)
    bias = call.maybe("bias")
    bias = None if bias is None else bias.float()
    if is_symmetric(pads) and all(before >= 0 for before, _ in pads):
        padding = [before for before, _ in pads]
    else:
        x, padding = pad_last(x, pads), [0] * rank
    return _CONV[rank](x, weight, bias, strides, padding, dilations, call.integer("groups", 1))


@operation("conv_transpose")
def conv_transpose(call: Call) -> Tensor:
    """``iOS15.conv_transpose``: 1 to 3 spatial dimensions, weight ``[C_in, C_out / groups, *K]``.

    The whole result is computed, then cropped: ``custom`` crops ``pad`` (the end less where ``output_shape`` asks for
    more), ``same`` gives ``input * stride`` elements. Beyond the whole result, ``output_shape`` adds the bias alone.
    """
    x, weight = call.tensor().float(), call.tensor("weight").float()
    rank = weight.ndim - 2
    strides = call.integers("strides", [1] * rank)
    dilations = call.integers("dilations", [1] * rank)
    whole = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, call.integer("groups", 1), dilations)
    pads = _crops(call, x, whole, strides)
    cropped = pad_last(whole, [(-before, -after) for before, after in pads])
    bias = call.maybe("bias")
    return cropped if bias is None else cropped + bias.float().reshape([1, -1, *([1] * rank)])


def _crops(call: Call, x: Tensor, whole: Tensor, strides: list[int]) -> Pads:
    """What to take away before and after each dimension; negative: to add."""
    kind = call.word("pad_type", "valid")
    custom = call.integers("pad", [0] * (2 * len(strides)))
    wanted = call.integers("output_shape")[2:] if call.has("output_shape") else None
    crops = []
    for i, stride in enumerate(strides):
        full, size = whole.shape[2 + i], x.shape[2 + i]
        if kind in ("same", "same_lower"):
            target = wanted[i] if wanted else size * stride
            before = halves(max(0, full - target), kind)[0]
        else:
            before = custom[2 * i] if kind == "custom" else 0
            target = wanted[i] if wanted else full - before - (custom[2 * i + 1] if kind == "custom" else 0)
        crops.append((before, full - before - target))
    return crops
