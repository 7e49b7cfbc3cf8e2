"""Blocks of pixels moved into the batch and back: how older converters write a dilated convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Blocked, Operand, Pads, Value
from edgekit.program.tflite.operators.slicing import Cut, cut

_ATEN = torch.ops.aten


def space_to_batch(call: Call) -> Value:
    """``SPACE_TO_BATCH_ND``: put off, because a convolution behind it dilates instead."""
    source = call.input(0)
    block = call.integers(1, "the block of a space-to-batch")
    flat = call.integers(2, "the padding of a space-to-batch")
    pads = tuple((flat[2 * axis], flat[2 * axis + 1]) for axis in range(len(block)))
    padded = [size + sum(pair) for size, pair in zip(source.shape[1:], pads, strict=False)]
    if any(size % step for size, step in zip(padded, block, strict=True)):
        raise call.refusal(f"{padded} pixels are no blocks of {block}", "a padding that completes the last block")
    spatial = [size // step for size, step in zip(padded, block, strict=True)]
    shape = (source.shape[0] * math.prod(block), *spatial, *source.shape[1 + len(block) :])

    def make() -> Value:
        return _into_batch(call, source, block, pads)

    blocked = Blocked(tuple(block), source, pads)
    return Value(shape, source.dtype, call.outputs[0].quantization, make=make, blocked=blocked)


def _into_batch(call: Call, source: Value, block: Sequence[int], pads: tuple[tuple[int, int], ...]) -> Value:
    count, quantization = len(block), source.quantization
    rest = list(source.shape[1 + count :])
    operand = call.emit.operand(source)
    if any(map(any, pads)):
        widths = [width for pair in reversed([(0, 0), *pads, *[(0, 0)] * len(rest)]) for width in pair]
        operand = call.requantized(call.call(_ATEN.constant_pad_nd.default, operand, widths, 0.0), quantization)
    split = [source.shape[0]]
    for size, pair, step in zip(source.shape[1:], pads, block, strict=False):
        split += [(size + sum(pair)) // step, step]
    inner, outer = [2 + 2 * axis for axis in range(count)], [1 + 2 * axis for axis in range(count)]
    order = [*inner, 0, *outer, *range(1 + 2 * count, 1 + 2 * count + len(rest))]
    spatial = [split[axis] for axis in outer]
    final = [source.shape[0] * math.prod(block), *spatial, *rest]
    return call.value(_moved(call, operand, source, ([*split, *rest], 0), order, final))


def batch_to_space(call: Call) -> Value:
    """``BATCH_TO_SPACE_ND``: undoes the other one; behind a dilated convolution only the crop is left."""
    source = call.input(0)
    block = call.integers(1, "the block of a batch-to-space")
    flat = call.integers(2, "the crop of a batch-to-space")
    crops = tuple((flat[2 * axis], flat[2 * axis + 1]) for axis in range(len(block)))
    dilated = _dilated(call, source, tuple(block), crops)
    if dilated is not None:
        return call.regrid(dilated)
    count = len(block)
    batch, rest = source.shape[0] // math.prod(block), list(source.shape[1 + count :])
    split = [*block, batch, *source.shape[1 : 1 + count], *rest]
    order = [count]
    for axis in range(count):
        order += [count + 1 + axis, axis]
    order += range(1 + 2 * count, 1 + 2 * count + len(rest))
    spatial = [size * step for size, step in zip(source.shape[1:], block, strict=False)]
    moved = _moved(call, call.emit.operand(source), source, (split, count), order, [batch, *spatial, *rest])
    whole = call.emit.value(moved, "file", source.quantization)
    kept = [
        Cut(axis + 1, before, 1, size - before - after)
        for axis, (size, (before, after)) in enumerate(zip(spatial, crops, strict=True))
    ]
    return call.regrid(cut(call, whole, kept))


def _dilated(call: Call, source: Value, block: tuple[int, ...], crops: Pads) -> Value | None:
    """Return the dilated convolution that these blocks stand for; what is cropped off need not be padded."""
    blocked = source.blocked
    if blocked is None or blocked.convolved is None or blocked.block != block:
        return None
    left = tuple((pad[0] - crop[0], pad[1] - crop[1]) for pad, crop in zip(blocked.pads, crops, strict=True))
    if min(map(min, left)) >= 0:
        return blocked.convolved(left)
    whole = blocked.convolved(blocked.pads)
    kept = [
        Cut(axis + 1, before, 1, whole.shape[axis + 1] - before - after) for axis, (before, after) in enumerate(crops)
    ]
    return cut(call, whole, kept)


def _moved(
    call: Call, operand: Operand, source: Value, split: tuple[list[int], int], order: list[int], final: list[int]
) -> Operand:
    """Reshape, permute, reshape; the second part of ``split`` says where the batch is."""
    sizes, batch = split
    wide = [-1 if call.emit.free_batch and axis == batch else size for axis, size in enumerate(sizes)]
    for target, argument in (
        (_ATEN.reshape.default, wide),
        (_ATEN.permute.default, order),
        (_ATEN.reshape.default, call.emit.free(final)),
    ):
        operand = call.requantized(call.call(target, operand, argument), source.quantization)
    return operand


OPERATORS = {"BATCH_TO_SPACE_ND": batch_to_space, "SPACE_TO_BATCH_ND": space_to_batch}
