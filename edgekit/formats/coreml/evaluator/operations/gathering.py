"""Gather and scatter (``scatter_gather.py`` of iOS15, 16 and 17).

Before iOS17 a negative index counts from the end. From iOS17 on it is out of bounds, and what an index out of bounds
gives is undefined ("memory safe") unless ``validate_indices`` asks for an error. The evaluator refuses it in every
case: a value that Core ML leaves open has no reference.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation

_NO_NEGATIVE_INDEX = 17
_Array = NDArray[np.generic]


def _places(call: Call, size: int, indices: Tensor) -> Tensor:
    """Return indices that count from the start, all of them inside."""
    indices = indices.long()
    if indices.numel():
        lowest, highest = int(indices.min()), int(indices.max())
        least = 0 if call.opset >= _NO_NEGATIVE_INDEX else -size
        if lowest < least or highest >= size:
            raise call.refuse(f"indices from {least} to {size - 1}", f"{lowest} to {highest}")
    return torch.where(indices < 0, indices + size, indices)


@operation("gather", exact=True)
def gather(call: Call) -> Tensor:
    """``iOS15.gather``, ``iOS16.gather``, ``iOS17.gather``: slices along ``axis``; ``batch_dims`` from iOS16 on."""
    x, batch = call.tensor(), call.integer("batch_dims", 0)
    axis = call.integer("axis", 0) % x.ndim
    indices = _places(call, x.shape[axis], call.tensor("indices"))
    if batch == 0:
        picked = x.index_select(axis, indices.flatten())
        return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])
    common = list(x.shape[:batch])
    rows = x.reshape([math.prod(common), *x.shape[batch:]])
    chosen = indices.reshape([math.prod(common), -1])
    parts = [row.index_select(axis - batch, places) for row, places in zip(rows, chosen, strict=True)]
    sizes = [*common, *x.shape[batch:axis], *indices.shape[batch:], *x.shape[axis + 1 :]]
    return torch.stack(parts).reshape(sizes)


@operation("gather_along_axis", exact=True)
def gather_along_axis(call: Call) -> Tensor:
    """``iOS15.gather_along_axis``: ``numpy.take_along_axis``."""
    x = call.tensor()
    axis = call.integer("axis", 0) % x.ndim
    return torch.take_along_dim(x, _places(call, x.shape[axis], call.tensor("indices")), axis)


def _index(call: Call, shape: torch.Size, indices: Tensor) -> tuple[Tensor, ...]:
    """The last dimension of indices as one index a dimension."""
    return tuple(_places(call, shape[i], indices[..., i]) for i in range(indices.shape[-1]))


@operation("gather_nd", exact=True)
def gather_nd(call: Call) -> Tensor:
    """``iOS15.gather_nd``: the last dimension of ``indices`` is a place in ``x``; ``batch_dims`` from iOS16 on."""
    x, indices, batch = call.tensor(), call.tensor("indices"), call.integer("batch_dims", 0)
    if batch == 0:
        return x[_index(call, x.shape, indices)]
    common = list(x.shape[:batch])
    rows = x.reshape([math.prod(common), *x.shape[batch:]])
    chosen = indices.reshape([math.prod(common), *indices.shape[batch:]])
    parts = [row[_index(call, row.shape, places)] for row, places in zip(rows, chosen, strict=True)]
    return torch.stack(parts).reshape([*common, *parts[0].shape])


_COMBINED: dict[str, np.ufunc] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _combine(call: Call, data: Tensor, index: tuple[Tensor, ...], updates: Tensor) -> Tensor:
    """Combine updates with data, one after the other: places may occur several times; the last ``update`` wins."""
    mode = call.word("mode", "add")
    result = data.clone()
    target: _Array = result.numpy()
    places = tuple(item.numpy() for item in index)
    values = updates.to(data.dtype).numpy()
    if mode == "update":
        target[places] = values
    elif mode == "div":
        divide = np.divide if data.is_floating_point() else np.floor_divide
        divide.at(target, places, values)
    elif mode in _COMBINED:
        _COMBINED[mode].at(target, places, values)
    else:
        raise call.refuse(f"mode update, div, {', '.join(_COMBINED)}", mode)
    return result


@operation("scatter")
def scatter(call: Call) -> Tensor:
    """``iOS15.scatter``: ``updates[..., i, ...]`` combined into ``data[..., indices[i], ...]`` along ``axis``."""
    data, updates = call.tensor("data"), call.tensor("updates")
    axis = call.integer("axis", 0) % data.ndim
    indices = _places(call, data.shape[axis], call.tensor("indices"))
    rank = indices.ndim
    moved = updates.movedim(tuple(range(axis, axis + rank)), tuple(range(rank)))
    return _combine(call, data.movedim(axis, 0).contiguous(), (indices,), moved).movedim(0, axis)


@operation("scatter_along_axis")
def scatter_along_axis(call: Call) -> Tensor:
    """``iOS15.scatter_along_axis``: each update goes to its own place along ``axis``."""
    data, updates = call.tensor("data"), call.tensor("updates")
    axis = call.integer("axis", 0) % data.ndim
    indices = _places(call, data.shape[axis], call.tensor("indices"))
    grid = list(torch.meshgrid([torch.arange(size) for size in indices.shape], indexing="ij"))
    grid[axis] = indices
    return _combine(call, data, tuple(grid), updates)


@operation("scatter_nd")
def scatter_nd(call: Call) -> Tensor:
    """``iOS15.scatter_nd``: the last dimension of ``indices`` is a place in ``data``."""
    data = call.tensor("data")
    return _combine(call, data, _index(call, data.shape, call.tensor("indices")), call.tensor("updates"))
