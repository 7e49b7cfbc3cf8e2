"""Operators that look values up, and those that find where values are."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from edgekit.program.tflite.call import Call, Translate
from edgekit.program.tflite.emitter import Operand, Value, channels_first
from edgekit.program.tflite.operators.creation import checked
from edgekit.program.tflite.operators.shape import reshaped
from edgekit.program.tflite.operators.slicing import Cut, cut

_ATEN = torch.ops.aten


def gather(call: Call) -> Value:
    """``GATHER``: slices of an axis by index; with ``batch_dims`` each of the first axes has indices of its own."""
    source, indices = call.input(0), call.input(1)
    axis, batches = call.options.axis % source.rank, call.options.batchDims
    if batches:
        return _gather_batched(call, source, indices, axis, batches % max(indices.rank, 1))
    shape = [*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :]]
    if indices.constant is not None and indices.constant.numel() == 1:
        place = int(indices.constant.flatten()[0])
        return call.regrid(reshaped(call, cut(call, source, [Cut(axis, place, 1, 1)]), shape))
    if axis == 0 and source.rank == 2 and source.constant is not None:
        return _embedding(call, source, indices)
    operand, layout = call.emit.as_it_lies(source)
    flat = call.call(_ATEN.reshape.default, call.emit.operand(indices), [-1])
    if indices.rank == 1:
        place = call.axis(axis, source, layout)
        return call.value(call.call(_ATEN.index_select.default, operand, place, flat), layout)
    picked = call.call(_ATEN.index_select.default, call.emit.operand(source), axis, flat)
    return _shaped(call, call.emit.value(picked, "file", source.quantization), shape)


def _shaped(call: Call, value: Value, shape: list[int]) -> Value:
    return call.regrid(reshaped(call, value, shape))


def _embedding(call: Call, table: Value, indices: Value) -> Value:
    """Look rows of a constant table up, as ``torch.nn.Embedding`` does."""
    rows = table.constant
    if rows is None:
        raise ValueError("an embedding has a constant table")
    name = f"{call.label}.weight"
    weight: Operand
    if table.quantization is None:
        weight = call.emit.held(rows, name)
    else:
        weight = call.emit.dequantized(rows, table.quantization, name, table.quantization.axis)
    places = call.emit.operand(indices)
    return call.value(call.call(_ATEN.embedding.default, weight, places))


def embedding_lookup(call: Call) -> Value:
    """``EMBEDDING_LOOKUP``: rows of a table, indices first."""
    indices, table = call.input(0), call.input(1)
    if table.constant is None or table.rank != 2:
        picked = call.call(_ATEN.index_select.default, call.emit.operand(table), 0, call.emit.operand(indices))
        return call.value(picked)
    return _embedding(call, table, indices)


def _gather_batched(call: Call, source: Value, indices: Value, axis: int, batches: int) -> Value:
    """Bring the axis behind the batch axes, flatten, pick along axis 1, and undo both."""
    shape = source.shape
    lead, middle, tail = shape[:batches], shape[batches:axis], shape[axis + 1 :]
    order = [*range(batches), axis, *range(batches, axis), *range(axis + 1, source.rank)]
    rows, width = math.prod(indices.shape[batches:]), math.prod([*middle, *tail])
    operand = call.call(_ATEN.permute.default, call.emit.operand(source), order)
    operand = call.call(_ATEN.reshape.default, operand, [-1, shape[axis], width])
    places = call.call(_ATEN.to.dtype, call.emit.operand(indices), torch.int64)
    places = call.call(_ATEN.reshape.default, places, [-1, rows, 1])
    places = call.call(_ATEN.expand.default, places, [-1, -1, width])
    picked = call.call(_ATEN.gather.default, operand, 1, places)
    picked = call.call(_ATEN.reshape.default, picked, call.emit.free([*lead, *indices.shape[batches:], *middle, *tail]))
    inner = range(batches, indices.rank)
    middles = range(indices.rank, indices.rank + len(middle))
    tails = range(indices.rank + len(middle), indices.rank + len(middle) + len(tail))
    return call.value(call.call(_ATEN.permute.default, picked, [*range(batches), *middles, *inner, *tails]))


def gather_nd(call: Call) -> Value:
    """``GATHER_ND``: slices by the coordinates in the last axis of the indices."""
    source, indices = call.input(0), call.input(1)
    depth = indices.shape[-1]
    strides = [math.prod(source.shape[axis + 1 : depth]) for axis in range(depth)]
    places = call.call(_ATEN.mul.Tensor, call.emit.operand(indices), torch.tensor(strides, dtype=indices.dtype))
    places = call.call(_ATEN.sum.dim_IntList, places, [-1])
    flat = call.call(_ATEN.reshape.default, places, [-1])
    rows = [math.prod(source.shape[:depth]), *source.shape[depth:]]
    operand = call.call(_ATEN.reshape.default, call.emit.operand(source), rows)
    picked = call.call(_ATEN.index_select.default, operand, 0, flat)
    value = call.emit.value(picked, "file", source.quantization)
    return _shaped(call, value, [*indices.shape[:-1], *source.shape[depth:]])


def _extreme(target: Callable[..., Any]) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        """Find the first of the largest (smallest) along an axis."""
        source = call.input(0)
        axis = call.integers(1, "the axis of a search")[0] % source.rank
        operand, layout = call.emit.as_it_lies(source)
        if layout == "channels-first" and axis != source.rank - 1:
            operand, layout = call.emit.operand(source), "file"  # what remains would lie in another order
        place = channels_first(source.rank).index(axis) if layout == "channels-first" else axis
        found = call.call(target, operand, place, False)
        return call.value(call.call(_ATEN.to.dtype, found, call.outputs[0].dtype))

    return translate


def topk(call: Call) -> list[Value]:
    """``TOPK_V2`` along the last axis; of equal values any may come first."""
    count = call.integers(1, "how many are taken")[0]
    found = call.call(_ATEN.topk.default, call.operand(0), count, -1)
    values, places = (call.call(operator.getitem, found, number) for number in range(2))
    return [call.value(values), call.value(call.call(_ATEN.to.dtype, places, call.outputs[1].dtype), output=1)]


def one_hot(call: Call) -> Value:
    """``ONE_HOT``: one value where the index is, another elsewhere, along a new axis."""
    indices = call.input(0)
    depth = checked(call, call.integers(1, "the depth of one-hot vectors"))[0]
    axis = call.options.axis if call.options.axis >= 0 else indices.rank
    call.constant(2, "the value of a hit"), call.constant(3, "the value elsewhere")
    on, off = call.operand(2), call.operand(3)
    shape = [*indices.shape[:axis], 1, *indices.shape[axis:]]
    wide = call.call(_ATEN.reshape.default, call.emit.operand(indices), call.emit.free(shape))
    classes = torch.arange(depth, dtype=indices.dtype).reshape([depth, *[1] * (indices.rank - axis)])
    hit = call.call(_ATEN.eq.Tensor, wide, classes)
    return call.value(call.call(_ATEN.where.self, hit, on, off))


def cumsum(call: Call) -> Value:
    """``CUMSUM`` along a constant axis, ``exclusive`` of each element itself or from the end (``reverse``)."""
    source = call.input(0)
    axis = call.integers(1, "the axis of a sum")[0] % source.rank
    operand = call.emit.operand(source)
    if call.options.reverse:
        operand = call.call(_ATEN.flip.default, operand, [axis])
    total = call.call(_ATEN.cumsum.default, operand, axis)
    if source.dtype is not torch.float32:
        total = call.call(_ATEN.to.dtype, total, source.dtype)  # torch sums integers in 64 bits
    if call.options.exclusive:
        total = call.call(_ATEN.sub.Tensor, total, operand)
    if call.options.reverse:
        total = call.call(_ATEN.flip.default, total, [axis])
    return call.value(total)


OPERATORS: dict[str, Translate] = {
    "ARG_MAX": _extreme(_ATEN.argmax.default),
    "ARG_MIN": _extreme(_ATEN.argmin.default),
    "CUMSUM": cumsum,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "ONE_HOT": one_hot,
    "TOPK_V2": topk,
}
