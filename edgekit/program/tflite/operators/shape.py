"""Operators that move values without computing: reshape, transpose, pad, concatenate, and what asks for shapes."""

from __future__ import annotations

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Layout, Value, channels_first

_ATEN = torch.ops.aten


def reshape(call: Call) -> Value:
    """``RESHAPE``: sizes from input 1, else from the options, else as the file declares the result."""
    source = call.input(0)
    if call.optional(1) is not None:
        sizes = call.integers(1, "the shape of a reshape")
    else:
        declared = getattr(call.options, "newShape", None)
        sizes = list(call.outputs[0].shape) if declared is None else [int(size) for size in declared]
    return reshaped(call, source, sizes)


def reshaped(call: Call, source: Value, sizes: list[int]) -> Value:
    """Reshape a value, the batch inferred where the program must take any."""
    if list(source.shape) == sizes:
        return call.value(call.emit.operand(source))
    return call.value(call.call(_ATEN.reshape.default, call.emit.flat(source), call.emit.free(sizes)))


def expand_dims(call: Call) -> Value:
    """``EXPAND_DIMS``."""
    source = call.input(0)
    axis = call.integers(1, "the axis of an expansion")[0]
    axis = axis if axis >= 0 else axis + source.rank + 1
    return reshaped(call, source, [*source.shape[:axis], 1, *source.shape[axis:]])


def squeeze(call: Call) -> Value:
    """``SQUEEZE``: the named axes, or all of size 1."""
    source = call.input(0)
    named = [] if call.options.squeezeDims is None else [int(axis) % source.rank for axis in call.options.squeezeDims]
    left_out = set(named) if named else {axis for axis, size in enumerate(source.shape) if size == 1}
    return reshaped(call, source, [size for axis, size in enumerate(source.shape) if axis not in left_out])


def transpose(call: Call) -> Value:
    """``TRANSPOSE``: one that only renames the order in which the value lies already costs nothing."""
    source = call.input(0)
    order = call.integers(1, "the order of a transpose")
    if source.constant is None and source.layout == "channels-first" and order == channels_first(source.rank):
        return call.value(source.operands["channels-first"])
    operand = call.emit.operand(source)
    if order == [0, *range(2, source.rank), 1] and source.rank in (4, 5) and not isinstance(operand, torch.Tensor):
        return call.value(operand, "channels-first")  # the file's own channels-first image becomes channels last
    return call.value(call.call(_ATEN.permute.default, operand, order))


def pad(call: Call) -> Value:
    """``PAD``, ``PADV2``: put off until somebody other than a convolution wants it."""
    source = call.input(0)
    flat = call.integers(1, "the width of a padding")
    pads = tuple((flat[index], flat[index + 1]) for index in range(0, len(flat), 2))
    filled = call.optional(2)
    number = 0.0 if filled is None else _number(call)

    def make() -> Value:
        operand, layout = call.emit.as_it_lies(source)
        ordered = [pads[axis] for axis in channels_first(source.rank)] if layout == "channels-first" else list(pads)
        widths = [width for pair in reversed(ordered) for width in pair]
        return call.value(call.call(_ATEN.constant_pad_nd.default, operand, widths, number), layout)

    if number != 0.0 or source.constant is not None or source.rank != 4:
        return make()
    shape = tuple(size + before + after for size, (before, after) in zip(source.shape, pads, strict=True))
    return Value(shape, source.dtype, call.outputs[0].quantization, padded=(source, pads), make=make)


def _number(call: Call) -> float:
    value = call.input(2)
    constant = call.constant(2, "the value of a padding").flatten()[0]
    if value.quantization is None:
        return float(constant)
    return float((constant.float() - value.quantization.zero_point[0]) * value.quantization.scale[0])


def concatenation(call: Call) -> Value:
    """``CONCATENATION`` along an axis of the file."""
    values = [call.input(index) for index in range(len(call.inputs))]
    computed = [value for value in values if value.constant is None]
    first = any(value.layout == "channels-first" for value in computed)
    layout: Layout = "channels-first" if first else "file"
    operands = [call.emit.operand(value, layout) for value in values]
    result = call.call(_ATEN.cat.default, operands, call.axis(call.options.axis, values[0], layout))
    return call.value(call.activated(result), layout)


def shape_of(call: Call) -> Value:
    """``SHAPE``: known while reading."""
    return call.value(torch.tensor(call.input(0).shape, dtype=call.outputs[0].dtype))


def rank_of(call: Call) -> Value:
    """``RANK``: known while reading."""
    return call.value(torch.tensor(call.input(0).rank, dtype=torch.int32))


OPERATORS = {
    "CONCATENATION": concatenation,
    "EXPAND_DIMS": expand_dims,
    "PAD": pad,
    "PADV2": pad,
    "RANK": rank_of,
    "RESHAPE": reshape,
    "SHAPE": shape_of,
    "SQUEEZE": squeeze,
    "TRANSPOSE": transpose,
}
