"""Shapes and slices (``tensor_transformation.py`` of iOS15, 16, 17 and 18)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.formats.coreml.evaluator.operations.padding import pad_last
from edgekit.formats.coreml.evaluator.registry import Call, operation

_COUNTS_ZEROS_FROM_THE_RIGHT = 17


@operation("expand_dims", exact=True)
def expand_dims(call: Call) -> Tensor:
    """``iOS15.expand_dims``: ``axes`` are places in the result; negative ones count from its end."""
    x, axes = call.tensor(), call.integers("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze", exact=True)
def squeeze(call: Call) -> Tensor:
    """``iOS15.squeeze``: every dimension of size 1, or ``axes``; those of another size are left, as PyTorch does."""
    x = call.tensor()
    axes = call.integers("axes", ()) or list(range(x.ndim))
    return x.squeeze(tuple(axis % x.ndim for axis in axes)) if x.ndim else x


@operation("reshape", exact=True)
def reshape(call: Call) -> Tensor:
    """``iOS15.reshape``, ``iOS17.reshape``: -1 is what is left over, 0 is taken from ``x``.

    Before iOS17 a 0 takes the size at its own place, from iOS17 on at its place counted from the right (1 where ``x``
    has no such dimension).
    """
    x, shape = call.tensor(), call.integers("shape")
    offset = x.ndim - len(shape) if call.opset >= _COUNTS_ZEROS_FROM_THE_RIGHT else 0
    if x.numel() == 0 and 0 in shape and math.prod(shape) == 0:
        return x.reshape(shape)
    sizes = [
        size if size else (x.shape[place + offset] if 0 <= place + offset < x.ndim else 1)
        for place, size in enumerate(shape)
    ]
    return x.reshape(sizes)


@operation("reshape_like", since=16, exact=True)
def reshape_like(call: Call) -> Tensor:
    """``iOS16.reshape_like``: the shape is put together of ``shape[begin:end]`` of the references."""
    references = call.several("ref_tensors")
    begins, ends = call.integers("begins"), call.integers("ends")
    masks = call.flags("end_masks", len(begins))
    sizes: list[int] = []
    for reference, begin, end, to_the_end in zip(references, begins, ends, masks, strict=True):
        sizes += reference.shape[begin : None if to_the_end else end]
    return call.tensor().reshape(sizes)


@operation("transpose", exact=True)
def transpose(call: Call) -> Tensor:
    """``iOS15.transpose``."""
    return call.tensor().permute(call.integers("perm"))


@operation("reverse", exact=True)
def reverse(call: Call) -> Tensor:
    """``iOS15.reverse``: along ``axes``, all when not given."""
    x = call.tensor()
    return x.flip(call.integers("axes", range(x.ndim)))


@operation("reverse_sequence", exact=True)
def reverse_sequence(call: Call) -> Tensor:
    """``iOS15.reverse_sequence``: the first ``lengths[i]`` items of each sequence turn round, the rest stays."""
    x, lengths = call.tensor(), call.tensor("lengths").long()
    axis, batch = call.integer("seq_axis", 0) % x.ndim, call.integer("batch_axis", 0) % x.ndim
    places = torch.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    limits = lengths.reshape([-1 if i == batch else 1 for i in range(x.ndim)])
    source = torch.where(places < limits, limits - 1 - places, places)
    return x.gather(axis, source.expand(x.shape))


def _slices(call: Call, rank: int) -> tuple[slice | int, ...]:
    """The numpy index that ``begin``, ``end``, ``stride`` and the three masks stand for."""
    begin, end = call.integers("begin"), call.integers("end")
    stride = call.integers("stride", [1] * rank)
    from_start, to_end, single = (call.flags(f"{name}_mask", rank) for name in ("begin", "end", "squeeze"))
    return tuple(
        begin[i] if single[i] else slice(None if from_start[i] else begin[i], None if to_end[i] else end[i], stride[i])
        for i in range(rank)
    )


@operation("slice_by_index", exact=True)
def slice_by_index(call: Call) -> Tensor:
    """``iOS15.slice_by_index``: numpy's slices, negative places and strides too.

    ``begin_mask`` and ``end_mask`` stand for a missing begin and end; ``squeeze_mask`` picks one item and drops the
    dimension (from the start when ``begin_mask`` is set too).
    """
    x = call.tensor()
    index = _slices(call, x.ndim)
    if any(isinstance(item, slice) and item.step < 0 for item in index):
        return torch.from_numpy(np.ascontiguousarray(x.numpy()[index]))
    return x[index]


@operation("slice_by_size", exact=True)
def slice_by_size(call: Call) -> Tensor:
    """``iOS15.slice_by_size``: a size of -1 takes what is left."""
    x, begin, sizes = call.tensor(), call.integers("begin"), call.integers("size")
    starts = [start % size if start < 0 else start for start, size in zip(begin, x.shape, strict=True)]
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        x = x.narrow(axis, start, x.shape[axis] - start if size == -1 else size)
    return x


@operation("slice_update", since=18, exact=True)
def slice_update(call: Call) -> Tensor:
    """``iOS18.slice_update``: a copy of ``x`` in which a slice, as in ``slice_by_index``, is ``update``."""
    x = call.tensor().clone()
    target: NDArray[np.generic] = x.numpy()
    target[_slices(call, x.ndim)] = call.tensor("update").numpy()
    return x


@operation("sliding_windows", exact=True)
def sliding_windows(call: Call) -> Tensor:
    """``iOS15.sliding_windows``: the windows stand along ``axis``, their items in a new dimension after it."""
    x = call.tensor()
    axis = call.integer("axis") % x.ndim
    windows = x.unfold(axis, call.integer("size"), call.integer("stride", 1))
    return windows.movedim(-1, axis + 1)


@operation("depth_to_space", exact=True)
def depth_to_space(call: Call) -> Tensor:
    """``iOS15.depth_to_space``: TensorFlow's order: channel ``(i b + j) C + c`` goes to row ``i``, column ``j``."""
    x, block = call.tensor(), call.integer("block_size")
    n, channels, height, width = x.shape
    split = x.reshape(n, block, block, channels // block**2, height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // block**2, height * block, width * block)


@operation("space_to_depth", exact=True)
def space_to_depth(call: Call) -> Tensor:
    """``iOS15.space_to_depth``: the inverse of ``depth_to_space``."""
    x, block = call.tensor(), call.integer("block_size")
    n, channels, height, width = x.shape
    split = x.reshape(n, channels, height // block, block, width // block, block)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(n, channels * block**2, height // block, width // block)


@operation("pixel_shuffle", exact=True)
def pixel_shuffle(call: Call) -> Tensor:
    """``iOS15.pixel_shuffle``: PyTorch's order: channel ``c f^2 + i f + j`` goes to row ``i``, column ``j``."""
    return torch.pixel_shuffle(call.tensor(), call.integer("upscale_factor"))


@operation("pixel_unshuffle", since=16, exact=True)
def pixel_unshuffle(call: Call) -> Tensor:
    """``iOS16.pixel_unshuffle``: the inverse of ``pixel_shuffle``."""
    return torch.pixel_unshuffle(call.tensor(), call.integer("downscale_factor"))


def _pairs(flat: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _matrix(call: Call, name: str) -> list[tuple[int, int]]:
    return _pairs([int(value) for value in call.tensor(name).flatten().tolist()])


@operation("space_to_batch", exact=True)
def space_to_batch(call: Call) -> Tensor:
    """``iOS15.space_to_batch``: pads, then moves each place of a block to its own part of the batch."""
    x, (rows, columns) = pad_last(call.tensor(), _matrix(call, "paddings")), call.integers("block_shape")
    n, channels, height, width = x.shape
    split = x.reshape(n, channels, height // rows, rows, width // columns, columns)
    return split.permute(3, 5, 0, 1, 2, 4).reshape(n * rows * columns, channels, height // rows, width // columns)


@operation("batch_to_space", exact=True)
def batch_to_space(call: Call) -> Tensor:
    """``iOS15.batch_to_space``: the inverse of ``space_to_batch``, then crops."""
    x, (rows, columns) = call.tensor(), call.integers("block_shape")
    n, channels, height, width = x.shape
    split = x.reshape(rows, columns, n // (rows * columns), channels, height, width)
    whole = split.permute(2, 3, 4, 0, 5, 1).reshape(-1, channels, height * rows, width * columns)
    return pad_last(whole, [(-before, -after) for before, after in _matrix(call, "crops")])


@operation("flatten2d", exact=True)
def flatten2d(call: Call) -> Tensor:
    """``iOS15.flatten2d``: the dimensions before ``axis`` become one, and those from it on."""
    x = call.tensor()
    axis = call.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operation("concat", exact=True)
def concat(call: Call) -> Tensor:
    """``iOS15.concat``: along ``axis``; ``interleave`` takes one slice of each in turn."""
    values, axis = call.several("values"), call.integer("axis")
    if call.flag("interleave"):
        axis %= values[0].ndim
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operation("stack", exact=True)
def stack(call: Call) -> Tensor:
    """``iOS15.stack``: along a new dimension at ``axis``."""
    return torch.stack(call.several("values"), call.integer("axis"))


@operation("split", exact=True)
def split(call: Call) -> tuple[Tensor, ...]:
    """``iOS15.split``: into ``split_sizes``, or into ``num_splits`` equal parts."""
    x, axis = call.tensor(), call.integer("axis")
    if call.has("split_sizes"):
        return torch.split(x, call.integers("split_sizes"), axis)
    parts = call.integer("num_splits")
    if x.shape[axis] % parts:
        raise call.refuse(f"a size that {parts} parts divide along axis {axis}", x.shape[axis])
    return torch.split(x, x.shape[axis] // parts, axis)


@operation("pad", exact=True)
def pad(call: Call) -> Tensor:
    """``iOS15.pad``: the last ``len(pad) / 2`` dimensions, ``constant``, ``reflect`` or ``replicate``."""
    x, pairs, mode = call.tensor(), _pairs(call.integers("pad")), call.word("mode", "constant")
    if mode == "constant":
        value = call.number("constant_val", 0.0)
        return pad_last(x, pairs, value if x.is_floating_point() else int(value))
    if mode not in ("reflect", "replicate"):
        raise call.refuse("mode constant, reflect or replicate", mode)
    for axis, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        if before or after:
            x = x.index_select(axis, _mirrored(x.shape[axis], before, after, mode))
    return x


def _mirrored(size: int, before: int, after: int, mode: str) -> Tensor:
    """Places that padding repeats."""
    places = torch.arange(-before, size + after)
    if mode == "replicate":
        return places.clamp(0, size - 1)
    return (size - 1) - (size - 1 - places.abs()).abs()


@operation("tile", exact=True)
def tile(call: Call) -> Tensor:
    """``iOS15.tile``: each dimension repeated ``reps`` times."""
    return call.tensor().repeat(call.integers("reps"))
