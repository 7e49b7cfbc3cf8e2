"""Pooling over windows."""

from __future__ import annotations

import torch
from ai_edge_litert import schema_py_generated as schema

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Pads, Value
from edgekit.program.tflite.operators.convolution import same_pads
from edgekit.records import Quantization

_ATEN = torch.ops.aten


def average_pool_2d(call: Call) -> Value:
    """``AVERAGE_POOL_2D``: padding is not counted.

    Over the whole image it is a mean. Over windows of integers it becomes a depthwise convolution with weights
    ``1 / window``: XNNPACK pools in floating point only, and the convolution rounds the same sums once.
    """
    source = call.input(0)
    window, stride, pads = _geometry(call, source)
    image = call.emit.operand(source, "channels-first")
    padded = any(pads[0] + pads[1])
    if window == source.shape[1:3] and not padded:
        return call.value(call.activated(call.call(_ATEN.mean.dim, image, [2, 3], True)), "channels-first")
    if source.quantization is not None and not padded:
        return call.value(
            call.activated(_as_convolution(call, image, source.shape[3], window, stride)), "channels-first"
        )
    if padded and any(before != after for before, after in pads):
        return call.value(call.activated(_counted(call, image, window, stride, pads)), "channels-first")
    padding = [before for before, _ in pads]
    result = call.call(_ATEN.avg_pool2d.default, image, list(window), list(stride), padding, False, False)
    return call.value(call.activated(result), "channels-first")


def _as_convolution(
    call: Call, image: Operand, channels: int, window: tuple[int, ...], stride: tuple[int, ...]
) -> Operand:
    share = 1.0 / (window[0] * window[1])
    ones = torch.full((channels, 1, *window), 127, dtype=torch.int8)
    scales = Quantization(scale=(share / 127,) * channels, zero_point=(0,) * channels, axis=0)
    weight = call.emit.dequantized(ones, scales, f"{call.label}.window", 0)
    result: Operand = call.call(_ATEN.conv2d.default, image, weight, None, list(stride), [0, 0], [1, 1], channels)
    return result


def _counted(call: Call, image: Operand, window: tuple[int, ...], stride: tuple[int, ...], pads: Pads) -> Operand:
    """Average with more padding on one side than on the other: the sum over the padded window by the true count."""
    (top, bottom), (left, right) = pads
    padded = call.call(_ATEN.constant_pad_nd.default, image, [left, right, top, bottom], 0.0)
    padded = call.requantized(padded, call.input(0).quantization)
    mean = call.call(_ATEN.avg_pool2d.default, padded, list(window), list(stride))
    height, width = call.input(0).shape[1:3]
    inside = torch.nn.functional.pad(torch.ones(1, 1, height, width), [left, right, top, bottom])
    share = torch.nn.functional.avg_pool2d(inside, list(window), list(stride))
    result: Operand = call.call(_ATEN.mul.Tensor, mean, 1.0 / share)
    return result


def max_pool_2d(call: Call) -> Value:
    """``MAX_POOL_2D``: padding never wins."""
    source = call.input(0)
    window, stride, pads = _geometry(call, source)
    image = call.emit.operand(source, "channels-first")
    symmetric = all(before == after for before, after in pads)
    if not symmetric:
        (top, bottom), (left, right) = pads
        lowest = _lowest(source)
        image = call.call(_ATEN.constant_pad_nd.default, image, [left, right, top, bottom], lowest)
        image = call.requantized(image, source.quantization)
    padding = [before for before, _ in pads] if symmetric else [0, 0]
    result = call.call(_ATEN.max_pool2d.default, image, list(window), list(stride), padding)
    return call.value(call.activated(result), "channels-first")


def _lowest(source: Value) -> float:
    """Return a number that no element is below: the least of an integer grid, else the least finite float16.

    It is not float32's least, which a program of half precision could not hold.
    """
    if source.quantization is None:
        return -65504.0
    return source.quantization.scale[0] * (-128 - source.quantization.zero_point[0])


def l2_pool_2d(call: Call) -> Value:
    """``L2_POOL_2D``: the root of the mean of squares."""
    source = call.input(0)
    window, stride, pads = _geometry(call, source)
    if any(pads[0] + pads[1]):
        raise call.refusal("it pads, and the padding is not counted", "a pooling with VALID padding")
    image = call.emit.operand(source, "channels-first")
    mean = call.call(_ATEN.avg_pool2d.default, call.call(_ATEN.mul.Tensor, image, image), list(window), list(stride))
    return call.value(call.activated(call.call(_ATEN.sqrt.default, mean)), "channels-first")


def _geometry(call: Call, source: Value) -> tuple[tuple[int, int], tuple[int, int], Pads]:
    options = call.options
    window, stride = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    pads: Pads = ((0, 0), (0, 0))
    if options.padding == schema.Padding.SAME:
        pads = same_pads(source.shape[1:3], window, stride, (1, 1))
    return window, stride, pads


OPERATORS = {"AVERAGE_POOL_2D": average_pool_2d, "L2_POOL_2D": l2_pool_2d, "MAX_POOL_2D": max_pool_2d}
