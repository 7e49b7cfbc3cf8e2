"""Reductions over axes."""

from __future__ import annotations

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


def _mean(call: Call, source: Operand, axes: list[int], keep: bool) -> Operand:
    """Keep the axes of an image's mean, then drop them: XNNPACK averages only with its axes kept."""
    if not keep and axes == [2, 3] and source_rank(source) == 4:
        mean = call.call(_ATEN.mean.dim, source, axes, True)
        grid = call.outputs[0].quantization
        sizes = [-1, int(_sizes(source)[1])]
        return call.call(_ATEN.reshape.default, call.requantized(mean, grid), sizes)  # type: ignore[no-any-return]
    return call.call(_ATEN.mean.dim, source, axes, keep)  # type: ignore[no-any-return]


def source_rank(operand: Operand) -> int:
    """Return the number of axes of an operand."""
    return len(_sizes(operand))


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
    "MEAN": _reduced(_mean),
    "REDUCE_ALL": _reduced(_one_by_one(_ATEN.all.dim)),
    "REDUCE_ANY": _reduced(_one_by_one(_ATEN.any.dim)),
    "REDUCE_MAX": _reduced(_simple(_ATEN.amax.default)),
    "REDUCE_MIN": _reduced(_simple(_ATEN.amin.default)),
    "REDUCE_PROD": _reduced(_one_by_one(_ATEN.prod.dim_int)),
    "SUM": _reduced(_simple(_ATEN.sum.dim_IntList)),
}
