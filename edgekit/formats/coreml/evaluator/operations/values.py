"""Tensors made, counted and sorted (``tensor_operation.py`` of iOS15, 16 and 17)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.prepare import held_in
from edgekit.formats.coreml.evaluator.registry import Call, operation


@operation("argsort", exact=True)
def argsort(call: Call) -> Tensor:
    """``iOS15.argsort``: descending by default; equal values keep their order."""
    return torch.argsort(
        call.tensor(), dim=call.integer("axis", -1), descending=not call.flag("ascending"), stable=True
    )


@operation("topk", exact=True)
def topk(call: Call) -> tuple[Tensor, ...]:
    """``iOS15.topk``, ``iOS16.topk``, ``iOS17.topk``: the greatest (``ascending``: least) ``k``, sorted.

    Of equal values the first comes first. ``k = -1`` takes all. Without ``sort`` Core ML promises no order; here they
    are sorted all the same. Without ``return_indices`` there is one output.
    """
    x, axis, count = call.tensor(), call.integer("axis", -1), call.integer("k", 1)
    values, places = torch.sort(x, dim=axis, descending=not call.flag("ascending"), stable=True)
    count = x.shape[axis] if count == -1 else count
    values = values.narrow(axis, 0, count)
    return (values, places.narrow(axis, 0, count)) if call.flag("return_indices", True) else (values,)


@operation("band_part", exact=True)
def band_part(call: Call) -> Tensor:
    """``iOS15.band_part``: zero outside a band of the last two dimensions; a negative bound is no bound."""
    x, lower, upper = call.tensor(), call.integer("lower", -1), call.integer("upper", -1)
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None, :]
    inside = torch.ones(x.shape[-2:], dtype=torch.bool)
    if lower >= 0:
        inside &= rows - columns <= lower
    if upper >= 0:
        inside &= columns - rows <= upper
    return torch.where(inside, x, torch.zeros_like(x))


@operation("cumsum")
def cumsum(call: Call) -> Tensor:
    """``iOS15.cumsum``: ``exclusive`` leaves each element out of its own sum, ``reverse`` sums from the end."""
    x, axis = call.tensor(), call.integer("axis", 0)
    x = x.flip(axis) if call.flag("reverse") else x
    sums = x.cumsum(axis, dtype=x.dtype)
    if call.flag("exclusive"):
        sums = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), sums.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return sums.flip(axis) if call.flag("reverse") else sums


@operation("fill")
def fill(call: Call) -> Tensor:
    """``iOS15.fill``: one value in the given shape."""
    return torch.full(call.integers("shape"), call.number("value", 0.0), dtype=torch.float64).to(held_in(call.dtype()))


@operation("fill_like", since=16)
def fill_like(call: Call) -> Tensor:
    """``iOS16.fill_like``: one value in the shape of ``ref_tensor``, in the dtype of the value."""
    shape = call.tensor("ref_tensor").shape
    return torch.full(shape, call.number("value", 0.0), dtype=torch.float64).to(held_in(call.dtype()))


@operation("non_zero", exact=True)
def non_zero(call: Call) -> Tensor:
    """``iOS15.non_zero``: one row of places for each element that is not zero, in row-major order."""
    return torch.nonzero(call.tensor())


@operation("one_hot")
def one_hot(call: Call) -> Tensor:
    """``iOS15.one_hot``: ``on_value`` at each index along a new ``axis``; an index outside gives off values only."""
    indices, count = call.tensor("indices").long(), call.integer("one_hot_vector_size")
    axis = call.integer("axis", -1)
    places = torch.arange(count)
    hits = (indices[..., None] == places).movedim(-1, axis if axis >= 0 else axis + indices.ndim + 1)
    on, off = call.number("on_value", 1), call.number("off_value", 0)
    return torch.where(hits, on, off).to(held_in(call.dtype()))


@operation("range_1d")
def range_1d(call: Call) -> Tensor:
    """``iOS15.range_1d``: from ``start`` to ``end``, which is left out, in the dtype of the three."""
    start, end, step = (call.tensor(name) for name in ("start", "end", "step"))
    dtype = held_in(call.dtype())
    if dtype.is_floating_point:
        return torch.arange(float(start), float(end), float(step), dtype=torch.float64).to(dtype)
    return torch.arange(int(start), int(end), int(step)).to(dtype)


@operation("shape", exact=True)
def shape(call: Call) -> Tensor:
    """``iOS15.shape``: the sizes, as integers."""
    return torch.tensor(call.tensor().shape, dtype=torch.int32)
