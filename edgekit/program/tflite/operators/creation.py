"""Operators that make values, almost always known while reading."""

from __future__ import annotations

import math

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Value

_ATEN = torch.ops.aten
MAX_ELEMENTS = 2**28
"""More than that is not made while reading: a damaged file may ask for anything."""


def checked(call: Call, sizes: list[int]) -> list[int]:
    """Return sizes of a value that is made while reading, if they can be.

    Raises:
        UnsupportedError: A negative size, or too many elements.
    """
    if min(sizes, default=0) < 0 or math.prod(sizes) > MAX_ELEMENTS:
        raise call.refusal(f"it makes a value of shape {sizes}", f"values of at most {MAX_ELEMENTS} elements")
    return sizes


def fill(call: Call) -> Value:
    """``FILL``: one number everywhere."""
    sizes = checked(call, call.integers(0, "the shape of a fill"))
    source = call.input(1)
    if source.constant is not None:
        filled = source.constant.reshape(()).expand(sizes).contiguous()
        return Value(tuple(sizes), source.dtype, source.quantization, constant=filled)
    operand = call.call(_ATEN.reshape.default, call.emit.operand(source), [1] * len(sizes))
    return call.value(call.call(_ATEN.expand.default, operand, sizes))


def broadcast_to(call: Call) -> Value:
    """``BROADCAST_TO``: axes of size 1 repeated."""
    source = call.input(0)
    sizes = checked(call, call.integers(1, "the shape of a broadcast"))
    if source.constant is not None and (source.quantization is None or source.quantization.axis is None):
        return source.with_constant(source.constant.expand(sizes).contiguous())
    kept = [-1 if place == 0 and size == 1 and len(sizes) == source.rank else size for place, size in enumerate(sizes)]
    return call.value(call.call(_ATEN.expand.default, call.emit.operand(source), kept))


def range_(call: Call) -> Value:
    """``RANGE``: from a number up to another."""
    start, limit, step = (
        call.constant(index, f"the {name} of a range").reshape(()).item()
        for index, name in enumerate(("start", "limit", "step"))
    )
    if step == 0:
        raise call.refusal("a range in steps of 0 never ends", "another step")
    checked(call, [max(0, int((limit - start) / step) + 1)])
    return call.value(torch.arange(start, limit, step, dtype=call.outputs[0].dtype))


def zeros_like(call: Call) -> Value:
    """``ZEROS_LIKE``."""
    source = call.input(0)
    return call.value(torch.zeros(source.shape, dtype=source.dtype))


def shape_of(call: Call) -> Value:
    """``SHAPE``: known while reading."""
    return call.value(torch.tensor(call.input(0).shape, dtype=call.outputs[0].dtype))


def rank_of(call: Call) -> Value:
    """``RANK``: known while reading."""
    return call.value(torch.tensor(call.input(0).rank, dtype=torch.int32))


OPERATORS = {
    "BROADCAST_TO": broadcast_to,
    "FILL": fill,
    "RANGE": range_,
    "RANK": rank_of,
    "SHAPE": shape_of,
    "ZEROS_LIKE": zeros_like,
}
