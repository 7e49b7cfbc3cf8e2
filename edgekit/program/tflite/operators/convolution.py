"""Convolutions: kernels turned to torch's order of axes, SAME padding worked out, padding before them taken in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from ai_edge_litert import schema_py_generated as schema

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Blocked, Operand, Pads, Value
from edgekit.program.tflite.operators.dynamic import is_hybrid, on_dynamic_grid
from edgekit.program.tflite.operators.slicing import Cut, cut
from edgekit.program.tflite.operators.weights import real_weight, weight

_ATEN = torch.ops.aten


def conv_2d(call: Call) -> Value:
    """``CONV_2D``: kernel ``[O, H, W, I]``; more input channels than ``I`` mean groups."""
    options, source = call.options, call.input(0)
    kernel = call.input(1)
    stride, dilation = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    groups = source.shape[-1] // kernel.shape[3]
    held = _weight(call, source, kernel, (0, 3, 1, 2), groups)
    return _convolve(call, source, held, _Geometry(kernel.shape[1:3], stride, dilation, groups))


def depthwise_conv_2d(call: Call) -> Value:
    """``DEPTHWISE_CONV_2D``: kernel ``[1, H, W, C * M]``, whose channels are groups of ``M``."""
    options, source = call.options, call.input(0)
    kernel = call.input(1)
    stride, dilation = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    held = _weight(call, source, kernel, (3, 0, 1, 2), source.shape[-1])
    return _convolve(call, source, held, _Geometry(kernel.shape[1:3], stride, dilation, source.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Geometry:
    window: tuple[int, ...]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def _convolve(call: Call, source: Value, held: Operand, geometry: _Geometry) -> Value:
    """Convolve with the padding that the options, a padding before it or blocks in the batch ask for."""
    pads: Pads = ((0, 0), (0, 0))
    if call.options.padding == schema.Padding.SAME:
        pads = same_pads(source.shape[1:3], geometry.window, geometry.stride, geometry.dilation)
    elif source.padded is not None:
        source, pads = _taken_in(source)
    elif source.blocked is not None and (geometry.stride, geometry.dilation) == ((1, 1), (1, 1)):
        return _of_blocks(call, source, source.blocked, held, geometry)
    return _padded(call, source, held, geometry, pads)


def _of_blocks(call: Call, source: Value, blocked: Blocked, held: Operand, geometry: _Geometry) -> Value:
    """Put a convolution of blocks off: undoing the blocks turns it into a dilated one."""
    sizes = [size - width + 1 for size, width in zip(source.shape[1:3], geometry.window, strict=True)]
    shape = (source.shape[0], *sizes, call.outputs[0].shape[-1])

    def convolved(pads: Pads) -> Value:
        block = blocked.block
        dilated = replace(geometry, dilation=(block[0], block[1]) if len(block) == 2 else (block[0], 1))
        return _padded(call, blocked.source, held, dilated, pads)

    return Value(
        shape,
        source.dtype,
        call.outputs[0].quantization,
        make=lambda: _padded(call, source, held, geometry, ((0, 0), (0, 0))),
        blocked=replace(blocked, convolved=convolved) if len(blocked.block) == 2 else None,
    )


def _padded(call: Call, source: Value, held: Operand, geometry: _Geometry, pads: Pads) -> Value:
    image = call.emit.operand(source, "channels-first")
    symmetric = all(before == after for before, after in pads)
    padding = [before for before, _ in pads] if symmetric else [0, 0]
    if not symmetric:
        image = call.requantized(zero_padded(call, image, pads), source.quantization)
    if is_hybrid(source, call.input(1)) and _is_dense(source, geometry.groups):
        image = on_dynamic_grid(call, image)
    bias = _bias(call, 2)
    stride, dilation = list(geometry.stride), list(geometry.dilation)
    result = call.call(_ATEN.conv2d.default, image, held, bias, stride, padding, dilation, geometry.groups)
    return call.value(call.activated(result), "channels-first")


def transpose_conv(call: Call) -> Value:
    """``TRANSPOSE_CONV``: kernel ``[O, H, W, I]``, input 2, whose result is cut to the wanted shape, input 0."""
    options = call.options
    wanted = call.integers(0, "the shape of a transposed convolution's result")
    kernel, source = call.input(1), call.input(2)
    window, stride = kernel.shape[1:3], (options.strideH, options.strideW)
    order = (3, 0, 1, 2)
    held = real_weight(call, kernel, order) if is_hybrid(source, kernel) else weight(call, kernel, order, 1)
    # The operator is the gradient of a convolution from the wanted size to the input's: its padding is cut off.
    same = options.padding == schema.Padding.SAME
    pads = same_pads(tuple(wanted[1:3]), window, stride, (1, 1)) if same else ((0, 0), (0, 0))
    image = call.emit.operand(source, "channels-first")
    full = [(size - 1) * step + width for size, step, width in zip(source.shape[1:3], stride, window, strict=True)]
    excess = [length - before - size for length, (before, _), size in zip(full, pads, wanted[1:3], strict=True)]
    symmetric = [before for before, _ in pads]
    extra = [before - after for (before, _), after in zip(pads, excess, strict=True)]
    bias = _bias(call, 3)
    if all(0 <= more < step for more, step in zip(extra, stride, strict=True)):
        arguments = (list(stride), symmetric, extra, 1, [1, 1])
        result = call.call(_ATEN.conv_transpose2d.input, image, held, bias, *arguments)
        return call.value(call.activated(result), "channels-first")
    result = call.call(_ATEN.conv_transpose2d.input, image, held, bias, list(stride), [0, 0], [0, 0], 1, [1, 1])
    whole = call.value(call.activated(result), "channels-first")
    pieces = [
        Cut(axis + 1, before, 1, size) for axis, ((before, _), size) in enumerate(zip(pads, wanted[1:3], strict=True))
    ]
    return cut(call, whole, pieces)


def same_pads(
    sizes: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Pads:
    """Work out TensorFlow's SAME padding: as many outputs as ``ceil(size / stride)``, the odd zero at the end.

    Example:
        >>> same_pads((224, 5), (3, 3), (2, 1), (1, 1))
        ((0, 1), (1, 1))
    """
    found = []
    for size, width, step, spread in zip(sizes, window, stride, dilation, strict=True):
        reach = (width - 1) * spread + 1
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def zero_padded(call: Call, image: Operand, pads: Pads) -> Operand:
    """Pad a channels-first image with zeros."""
    widths = [width for pair in reversed(pads) for width in pair]
    result: Operand = call.call(_ATEN.constant_pad_nd.default, image, widths, 0.0)
    return result


def _taken_in(source: Value) -> tuple[Value, Pads]:
    """Return what an explicit padding pads and by how much, where a convolution can do that itself."""
    if source.padded is not None:
        inner, pads = source.padded
        if len(pads) == 4 and pads[0] == pads[3] == (0, 0) and all(before == after for before, after in pads[1:3]):
            return inner, (pads[1], pads[2])
    return source, ((0, 0), (0, 0))


def _weight(call: Call, source: Value, kernel: Value, order: tuple[int, ...], groups: int) -> Operand:
    """Hold a kernel in torch's order of axes.

    Hybrid convolutions with groups compute in floats: no runtime but TFLite's quantizes their activations at run time.
    """
    if is_hybrid(source, kernel) and not _is_dense(source, groups):
        return real_weight(call, kernel, order)
    return weight(call, kernel, order, 0)


def _is_dense(source: Value, groups: int) -> bool:
    """Whether a convolution has no groups; XNNPACK takes one with a single input channel for depthwise."""
    return groups == 1 and source.shape[-1] > 1


def _bias(call: Call, index: int) -> Operand | None:
    """Return a bias as real numbers; the int32 of an integer layer times its step, so that kernels find it again."""
    value = call.optional(index)
    if value is None:
        return None
    return held_bias(call, value)


def held_bias(call: Call, value: Value) -> Operand | None:
    """Hold a constant bias as float32 ``[C]``."""
    if value.constant is None:
        return call.emit.operand(value)
    return call.emit.held(value.real(), f"{call.label}.bias")


def conv_3d(call: Call) -> Value:
    """``CONV_3D``: kernel ``[D, H, W, I, O]``, image ``[N, D, H, W, C]``."""
    options, source = call.options, call.input(0)
    kernel = call.input(1)
    stride = (options.strideD, options.strideH, options.strideW)
    dilation = (options.dilationDFactor, options.dilationHFactor, options.dilationWFactor)
    held = real_weight(call, kernel, (4, 3, 0, 1, 2))
    image = call.emit.operand(source, "channels-first")
    if options.padding == schema.Padding.SAME:
        pads: list[int] = []
        for size, width, step, spread in zip(source.shape[1:4], kernel.shape[:3], stride, dilation, strict=True):
            total = max((-(-size // step) - 1) * step + (width - 1) * spread + 1 - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        image = call.call(_ATEN.constant_pad_nd.default, image, pads, 0.0)
    result = call.call(
        _ATEN.conv3d.default, image, held, _bias(call, 2), list(stride), [0, 0, 0], list(dilation),
        source.shape[-1] // kernel.shape[3],
    )  # fmt: skip
    return call.value(call.activated(result), "channels-first")


OPERATORS = {
    "CONV_2D": conv_2d,
    "CONV_3D": conv_3d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "TRANSPOSE_CONV": transpose_conv,
}
