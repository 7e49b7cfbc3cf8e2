"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Layout, Operand, Value, channels_first

_ATEN = torch.ops.aten


def _axes(call: Call, source: Value) -> tuple[list[int], Layout]:
    """Return the axes to reduce and the order in which the source is best taken.

    Channels first only where the axes that remain lie in the same order as the file's, or all are kept.
    """
    axes = sorted({axis % max(source.rank, 1) for axis in call.integers(1, "the axes of a reduction")})
    if source.constant is not None or source.layout == "file":
        return axes, "file"
    order = channels_first(source.rank)
    remaining = [axis for axis in order if axis not in axes]
    if not call.options.keepDims and remaining != sorted(remaining):
        return axes, "file"
    return sorted(order.index(axis) for axis in axes), "channels-first"


def _reduced(apply: Callable[[Call, Operand, list[int], bool], Operand]) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        source = call.input(0)
        axes, layout = _axes(call, source)
        operand = call.emit.operand(source, layout)
        if not axes:
            return call.value(operand, layout)
        kept = call.options.keepDims
        return call.value(apply(call, operand, axes, kept), layout if kept else "file")

    return translate


def _over_images(
    target: Callable[[Call, Operand], Operand], otherwise: Callable[[Call], Value]
) -> Callable[[Call], Value]:
    """Reduce as an image of which everything but channels is reduced, which is what XNNPACK reduces.

    Adjacent axes become the image, axes before them channels, and axes behind them are brought before them.
    """

    def translate(call: Call) -> Value:
        source = call.input(0)
        axes = sorted({axis % max(source.rank, 1) for axis in call.integers(1, "the axes of a reduction")})
        named = axes
        if axes[:1] == [0] and source.shape[0] == 1 and not call.emit.free_batch:
            axes = axes[1:]  # one sample is its own mean
        adjacent = bool(axes) and axes == list(range(axes[0], axes[-1] + 1)) and axes[0] > 0
        if not adjacent or source.constant is not None or not source.dtype.is_floating_point:
            return otherwise(call)
        reduced = target(call, _as_image(call, source, axes))
        sizes = [1 if axis in named else size for axis, size in enumerate(source.shape)]
        grid = call.outputs[0].quantization
        if call.options.keepDims and source.rank == 4 and axes == [1, 2]:
            return call.value(reduced, "channels-first")
        kept = [size for axis, size in enumerate(sizes) if call.options.keepDims or axis not in named]
        value = call.call(_ATEN.reshape.default, call.requantized(reduced, grid), call.emit.free(kept))
        return call.value(value)

    return translate


def _as_image(call: Call, source: Value, axes: list[int]) -> Operand:
    if source.rank == 4 and axes == [1, 2]:
        return call.emit.operand(source, "channels-first")
    first, last = axes[0], axes[-1] + 1
    operand = call.emit.operand(source)
    if last < source.rank:
        order = [*range(first), *range(last, source.rank), *axes]
        operand = call.requantized(call.call(_ATEN.permute.default, operand, order), source.quantization)
    channels = math.prod([*source.shape[1:first], *source.shape[last:]])
    sizes = call.emit.free([source.shape[0], channels, math.prod(source.shape[first:last]), 1])
    image = call.call(_ATEN.reshape.default, operand, sizes)
    return call.requantized(image, source.quantization)


def _image_mean(call: Call, image: Operand) -> Operand:
    result: Operand = call.call(_ATEN.mean.dim, image, [2, 3], True)
    return result


def _image_max(call: Call, image: Operand) -> Operand:
    result: Operand = call.call(_ATEN.max_pool2d.default, image, list(_sizes(image)[2:]))
    return result


def _sizes(operand: Operand) -> Any:
    return operand.shape if isinstance(operand, torch.Tensor) else operand.meta["val"].shape


def _simple(target: Callable[..., Any]) -> Callable[[Call, Operand, list[int], bool], Operand]:
    def apply(call: Call, source: Operand, axes: list[int], keep: bool) -> Operand:
        result: Operand = call.call(target, source, axes, keep)
        return result

    return apply


def _one_by_one(target: Callable[..., Any]) -> Callable[[Call, Operand, list[int], bool], Operand]:
    """For operations that reduce one axis at a time."""

    def apply(call: Call, source: Operand, axes: list[int], keep: bool) -> Operand:
        for axis in reversed(axes):
            source = call.call(target, source, axis, keep)
        return source

    return apply


OPERATORS = {
    "MEAN": _over_images(_image_mean, _reduced(_simple(_ATEN.mean.dim))),
    "REDUCE_ALL": _reduced(_one_by_one(_ATEN.all.dim)),
    "REDUCE_ANY": _reduced(_one_by_one(_ATEN.any.dim)),
    "REDUCE_MAX": _over_images(_image_max, _reduced(_simple(_ATEN.amax.default))),
    "REDUCE_MIN": _reduced(_simple(_ATEN.amin.default)),
    "REDUCE_PROD": _reduced(_one_by_one(_ATEN.prod.dim_int)),
    "SUM": _reduced(_simple(_ATEN.sum.dim_IntList)),
}
