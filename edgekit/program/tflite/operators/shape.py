"""Operators that move values without computing: reshape, transpose, pad, concatenate, and what asks for shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Layout, Operand, Value, channels_first
from edgekit.program.tflite.graph import activation_of
from edgekit.records import Quantization

_ATEN = torch.ops.aten


def reshape(call: Call) -> Value:
    """``RESHAPE``: sizes from input 1, else from the options, else as the file declares the result."""
    source = call.input(0)
    if call.optional(1) is not None:
        sizes = call.integers(1, "the shape of a reshape")
    else:
        declared = getattr(call.options, "newShape", None)
        sizes = list(call.outputs[0].shape) if declared is None else [int(size) for size in declared]
    return call.regrid(reshaped(call, source, _known(call, source, sizes)))


def _known(call: Call, source: Value, sizes: list[int]) -> list[int]:
    """Work out the size that is left open (-1)."""
    if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
        raise call.refusal(f"the shape {sizes} is not one", "a shape with at most one size left open")
    known = math.prod(size for size in sizes if size != -1)
    return [math.prod(source.shape) // max(known, 1) if size == -1 else size for size in sizes]


def reshaped(call: Call, source: Value, sizes: Sequence[int]) -> Value:
    """Reshape a value, the batch inferred where the program must take any; it stays on its grid."""
    if list(source.shape) == list(sizes):
        return source
    if source.constant is not None and (source.quantization is None or source.quantization.axis is None):
        return source.with_constant(source.constant.reshape(tuple(sizes)))
    turned = call.call(_ATEN.reshape.default, call.emit.flat(source), call.emit.free(sizes))
    return call.emit.value(turned, "file", source.quantization)


def expand_dims(call: Call) -> Value:
    """``EXPAND_DIMS``."""
    source = call.input(0)
    axis = call.integers(1, "the axis of an expansion")[0]
    axis = axis if axis >= 0 else axis + source.rank + 1
    return call.regrid(reshaped(call, source, [*source.shape[:axis], 1, *source.shape[axis:]]))


def squeeze(call: Call) -> Value:
    """``SQUEEZE``: the named axes, or all of size 1."""
    source = call.input(0)
    named = [] if call.options.squeezeDims is None else [int(axis) % source.rank for axis in call.options.squeezeDims]
    left_out = set(named) if named else {axis for axis, size in enumerate(source.shape) if size == 1}
    sizes = [size for axis, size in enumerate(source.shape) if axis not in left_out]
    return call.regrid(reshaped(call, source, sizes))


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
    value = joined(call, values, call.options.axis % values[0].rank, call.outputs[0].quantization)
    if activation_of(call.options) == "NONE":
        return value
    operand, layout = call.emit.as_it_lies(value)
    return call.value(call.activated(operand), layout)


def joined(call: Call, values: Sequence[Value], axis: int, quantization: Quantization | None) -> Value:
    """Put values together along an axis of the file, each on the grid of the result first.

    Integer kernels move integers: XNNPACK refuses pieces on grids of their own, and the result is the same.
    """
    constants = [value.constant for value in values if value.constant is not None]
    grids = {value.quantization for value in values}
    if len(constants) == len(values) and grids == {quantization}:
        return values[0].with_constant(torch.cat(constants, axis), quantization)
    first = any(value.constant is None and value.layout == "channels-first" for value in values)
    layout: Layout = "channels-first" if first else "file"
    operands = [_piece(call, value, layout, quantization) for value in _same_batch(call, values, axis)]
    operands = [operand for operand in operands if 0 not in sizes_of(operand)]
    place = call.axis(axis, values[0], layout)
    result = operands[0] if len(operands) == 1 else call.call(_ATEN.cat.default, operands, place)
    return call.emit.value(result, layout, quantization)


def _piece(call: Call, value: Value, layout: Layout, quantization: Quantization | None) -> Operand:
    operand = call.emit.operand(value, layout)
    if quantization is None or value.quantization == quantization:
        return operand
    node = call.emit.held(operand) if isinstance(operand, torch.Tensor) else operand
    return call.emit.on_grid(node, quantization)


def _same_batch(call: Call, values: Sequence[Value], axis: int) -> list[Value]:
    """Repeat constants of batch 1 for each sample, where the batch is free (a class token before the patches)."""
    computed = [value for value in values if value.constant is None]
    if not call.emit.free_batch or axis == 0 or not computed:
        return list(values)
    like, _ = call.emit.as_it_lies(computed[0])
    return [value if value.constant is None else call.emit.repeated(value, like) for value in values]


def sizes_of(operand: Operand) -> tuple[int, ...]:
    """Return the sizes of an operand."""
    return tuple(
        int(size) for size in (operand.shape if isinstance(operand, torch.Tensor) else operand.meta["val"].shape)
    )


OPERATORS = {
    "CONCATENATION": concatenation,
    "EXPAND_DIMS": expand_dims,
    "PAD": pad,
    "PADV2": pad,
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "TRANSPOSE": transpose,
}
