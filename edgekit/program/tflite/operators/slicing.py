"""Operators that cut values into pieces and put pieces together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgekit.program.tflite.call import Call, Translate
from edgekit.program.tflite.emitter import Layout, Operand, Value, channels_first
from edgekit.program.tflite.operators.creation import checked
from edgekit.program.tflite.operators.shape import joined, reshaped

_ATEN = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Cut:
    """What is kept of one axis: ``begin``, ``begin + step`` ... ``count`` of them, the axis dropped or not."""

    axis: int
    begin: int
    step: int
    count: int
    dropped: bool = False

    def whole(self, size: int) -> bool:
        """Whether nothing is cut off."""
        return self.begin == 0 and self.step == 1 and self.count == size


def cut(call: Call, source: Value, cuts: Sequence[Cut]) -> Value:
    """Cut a value along axes of the file; it stays in the order of axes in which it lies, and on its grid."""
    if all(piece.whole(source.shape[piece.axis]) for piece in cuts):
        return source
    if source.constant is not None and (source.quantization is None or source.quantization.axis is None):
        constant: Operand = source.constant
        for piece in cuts:
            constant = _cut(call, constant, piece.axis, piece)
        if isinstance(constant, torch.Tensor):
            return source.with_constant(constant)
    operand, layout = call.emit.as_it_lies(source)
    for piece in cuts:
        if not piece.whole(source.shape[piece.axis]):
            operand = _cut(call, operand, call.axis(piece.axis, source, layout), piece)
    return call.emit.value(operand, layout, source.quantization)


def _cut(call: Call, operand: Operand, axis: int, piece: Cut) -> Operand:
    last = piece.begin + (piece.count - 1) * piece.step
    low, high = min(piece.begin, last), max(piece.begin, last) + 1
    if piece.count == 0:
        low, high = 0, 0
    steps = [] if abs(piece.step) == 1 else [abs(piece.step)]
    operand = call.call(_ATEN.slice.Tensor, operand, axis, low, high, *steps)
    return operand if piece.step > 0 else call.call(_ATEN.flip.default, operand, [axis])


def slice_(call: Call) -> Value:
    """``SLICE``: from ``begin`` on as many as ``size``, -1 for all that are left."""
    source = call.input(0)
    begins, sizes = call.integers(1, "where a slice begins"), call.integers(2, "the size of a slice")
    cuts = []
    for axis, (begin, size, length) in enumerate(zip(begins, sizes, source.shape, strict=True)):
        count = length - begin if size < 0 else size
        if begin < 0 or count < 0 or begin + count > length:
            raise call.refusal(f"it takes {size} from {begin} on of an axis of {length}", "a slice within the axis")
        cuts.append(Cut(axis, begin, 1, count))
    return call.regrid(cut(call, source, cuts))


def strided_slice(call: Call) -> Value:
    """``STRIDED_SLICE`` with all its masks: ranges, ellipsis, new axes and axes that are dropped."""
    source = call.input(0)
    cuts, sizes = _strided_cuts(call, source.shape)
    kept = cut(call, source, cuts)
    return call.regrid(kept if tuple(sizes) == kept.shape else reshaped(call, kept, sizes))


def _strided_cuts(call: Call, shape: tuple[int, ...]) -> tuple[list[Cut], list[int]]:
    """Return what is kept of each axis, and the sizes of the result with new axes and without dropped ones."""
    begins, ends, steps = (
        call.integers(index, f"the {name} of a strided slice")
        for index, name in ((1, "begin"), (2, "end"), (3, "step"))
    )
    options = call.options
    cuts: list[Cut] = []
    sizes: list[int] = []
    for place, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        bit = 1 << place
        if options.ellipsisMask & bit:
            later = sum(not options.newAxisMask >> after & 1 for after in range(place + 1, len(begins)))
            while len(cuts) < len(shape) - later:
                sizes.append(shape[len(cuts)])
                cuts.append(Cut(len(cuts), 0, 1, shape[len(cuts)]))
        elif options.newAxisMask & bit:
            sizes.append(1)
        else:
            piece = _strided_cut(call, len(cuts), shape, (begin, end, step), bit)
            cuts.append(piece)
            sizes.extend([] if piece.dropped else [piece.count])
    return cuts, [*sizes, *shape[len(cuts) :]]


def _strided_cut(call: Call, axis: int, shape: tuple[int, ...], span: tuple[int, int, int], bit: int) -> Cut:
    """Work out one axis as ``StridedSlice`` defines it: bounds from the end where negative, cut to the axis."""
    if axis >= len(shape) or span[2] == 0:
        raise call.refusal(f"it cuts axis {axis} of {len(shape)} in steps of {span[2]}", "a slice within the value")
    options, length = call.options, shape[axis]
    begin, end, step = span
    if options.shrinkAxisMask & bit:
        begin = begin + length if begin < 0 else begin
        if not 0 <= begin < length:
            raise call.refusal(f"it takes element {span[0]} of an axis of {length}", "an index within the axis")
        return Cut(axis, begin, 1, 1, dropped=True)
    end = begin + end if getattr(options, "offset", False) else end
    low, high = (0, length) if step > 0 else (-1, length - 1)
    begin = (low if step > 0 else high) if options.beginMask & bit else _bounded(begin, length, low, high)
    end = (high if step > 0 else low) if options.endMask & bit else _bounded(end, length, low, high)
    return Cut(axis, begin, step, max(0, -((begin - end) // step)))


def _bounded(index: int, length: int, low: int, high: int) -> int:
    return min(max(index + length if index < 0 else index, low), high)


def split(call: Call) -> list[Value]:
    """``SPLIT``: into as many equal pieces as there are results."""
    source = call.input(1)
    axis = call.integers(0, "the axis of a split")[0] % source.rank
    count = len(call.outputs)
    if source.shape[axis] % count:
        raise call.refusal(f"{source.shape[axis]} elements make no {count} equal pieces", "a split without remainder")
    return _pieces(call, source, axis, [source.shape[axis] // count] * count)


def split_v(call: Call) -> list[Value]:
    """``SPLIT_V``: into pieces of given sizes, one of which may be left to be worked out."""
    source = call.input(0)
    sizes = call.integers(1, "the sizes of a split")
    axis = call.integers(2, "the axis of a split")[0] % source.rank
    rest = source.shape[axis] - sum(size for size in sizes if size >= 0)
    return _pieces(call, source, axis, [rest if size < 0 else size for size in sizes])


def _pieces(call: Call, source: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    pieces, begin = [], 0
    for output, size in enumerate(sizes):
        pieces.append(call.regrid(cut(call, source, [Cut(axis, begin, 1, size)]), output))
        begin += size
    return pieces


def pack(call: Call) -> Value:
    """``PACK``: pieces of equal shape on top of each other along a new axis."""
    pieces = [call.input(index) for index in range(len(call.inputs))]
    axis = call.options.axis % (pieces[0].rank + 1)
    shape = pieces[0].shape
    wide = [reshaped(call, piece, [*shape[:axis], 1, *shape[axis:]]) for piece in pieces]
    return joined(call, wide, axis, call.outputs[0].quantization)


def unpack(call: Call) -> list[Value]:
    """``UNPACK``: one piece for each place along an axis, which is dropped."""
    source = call.input(0)
    axis = call.options.axis % source.rank
    sizes = [size for place, size in enumerate(source.shape) if place != axis]
    return [
        call.regrid(reshaped(call, cut(call, source, [Cut(axis, place, 1, 1, dropped=True)]), sizes), place)
        for place in range(len(call.outputs))
    ]


def reverse(call: Call) -> Value:
    """``REVERSE_V2`` along constant axes."""
    source = call.input(0)
    operand, layout = call.emit.as_it_lies(source)
    axes = [call.axis(axis, source, layout) for axis in call.integers(1, "the axes of a reversal")]
    return call.value(call.call(_ATEN.flip.default, operand, axes), layout)


def mirror_pad(call: Call) -> Value:
    """``MIRROR_PAD``: an edge reflected, with or without (``REFLECT``) the outermost element twice.

    Written as slices of one element put together, which delegates take where they have no reflection.
    """
    source = call.input(0)
    skipped = 1 if call.options.mode == 0 else 0  # schema: REFLECT = 0, SYMMETRIC = 1
    flat = call.integers(1, "the width of a padding")
    for axis in range(source.rank):
        before, after, length = flat[2 * axis], flat[2 * axis + 1], source.shape[axis]
        if max(before, after) + skipped > length:
            raise call.refusal(f"it mirrors {max(before, after)} of {length} elements", "a narrower padding")
        places = (
            [*range(before + skipped - 1, skipped - 1, -1)],
            [*range(length - 1 - skipped, length - 1 - skipped - after, -1)],
        )
        edges = [[cut(call, source, [Cut(axis, place, 1, 1)]) for place in side] for side in places]
        if before + after:
            source = joined(call, [*edges[0], source, *edges[1]], axis, source.quantization)
    return call.regrid(source)


def tile(call: Call) -> Value:
    """``TILE``: repeated along each axis, as often as the second input says."""
    source = call.input(0)
    layout: Layout = "file" if source.constant is not None else source.layout
    operand = call.emit.operand(source, layout)
    times = call.integers(1, "how often a value is repeated")
    checked(call, [size * count for size, count in zip(source.shape, times, strict=True)])
    repeats = [times[axis] for axis in channels_first(source.rank)] if layout == "channels-first" else times
    return call.value(call.call(_ATEN.repeat.default, operand, repeats), layout)


OPERATORS: dict[str, Translate] = {
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "REVERSE_V2": reverse,
    "SLICE": slice_,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "STRIDED_SLICE": strided_slice,
    "TILE": tile,
    "UNPACK": unpack,
}
