"""Compressed constants (``iOS16/constexpr_ops.py``, ``iOS18/compression.py``), decompressed once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.constants import unpack_bits
from edgekit.formats.coreml.evaluator.operations.quantization import along_axis
from edgekit.formats.coreml.evaluator.prepare import held_in
from edgekit.formats.coreml.evaluator.registry import Call, operation


@operation("constexpr_affine_dequantize", since=16, constant=True)
def constexpr_affine_dequantize(call: Call) -> Tensor:
    """``iOS16.constexpr_affine_dequantize``: ``scale (quantized_data - zero_point)``, per tensor or along ``axis``."""
    data = call.tensor("quantized_data").float()
    axis = call.integer("axis", 0)
    scale, zero_point = (along_axis(call.tensor(name).float(), data.ndim, axis) for name in ("scale", "zero_point"))
    return (data - zero_point) * scale


@operation("constexpr_cast", since=16, constant=True)
def constexpr_cast(call: Call) -> Tensor:
    """``iOS16.constexpr_cast``: float16 to float32."""
    return call.tensor("source_val").to(held_in(call.dtype()))


@operation("constexpr_lut_to_dense", since=16, constant=True)
def constexpr_lut_to_dense(call: Call) -> Tensor:
    """``iOS16.constexpr_lut_to_dense``, ``iOS18.constexpr_lut_to_dense``: indices into a table of values.

    iOS16: one table; indices are packed, ``log2`` of its length bits each, and ``shape`` says how they stand.
    iOS18: a table for each block of the indices (``lut [*blocks, palettes, vector]``); an entry may be a vector, which
    is laid out along ``vector_axis``.
    """
    indices, lut = call.tensor("indices"), call.tensor("lut")
    if call.has("shape"):
        shape = call.integers("shape")
        bits = max(1, (lut.numel() - 1).bit_length())
        places = unpack_bits(indices.numpy(), bits, math.prod(shape))
        return lut.flatten()[torch.from_numpy(places.astype(np.int64))].reshape(shape)
    return _look_up(indices, lut, _vector_axis(call, indices.ndim))


@operation("constexpr_sparse_to_dense", since=16, constant=True)
def constexpr_sparse_to_dense(call: Call) -> Tensor:
    """``iOS16.constexpr_sparse_to_dense``, ``iOS18.constexpr_sparse_to_dense``: values where a mask is set, else 0.

    iOS16: the mask is packed, a bit an element. iOS18: it has the shape of the result.
    """
    values, mask = call.tensor("nonzero_data"), call.tensor("mask")
    if call.has("shape"):
        shape = call.integers("shape")
        flat = unpack_bits(mask.numpy(), 1, math.prod(shape))
        mask = torch.from_numpy(flat).reshape(shape)
    return _spread(call, values, mask)


@operation("constexpr_blockwise_shift_scale", since=18, constant=True)
def constexpr_blockwise_shift_scale(call: Call) -> Tensor:
    """``iOS18.constexpr_blockwise_shift_scale``: ``scale (data - offset)``, one scale and offset a block."""
    return _shift_scale(call, call.tensor("data").float())


@operation("constexpr_lut_to_sparse", since=18, constant=True)
def constexpr_lut_to_sparse(call: Call) -> tuple[Tensor, Tensor]:
    """``iOS18.constexpr_lut_to_sparse``: ``constexpr_lut_to_dense`` of the elements that a mask keeps.

    Gives the mask (spread along ``vector_axis`` where entries are vectors) and the values it keeps.
    """
    mask, lut = call.tensor("indices_mask"), call.tensor("lut")
    axis = _vector_axis(call, mask.ndim)
    dense = _look_up(_spread(call, call.tensor("indices_nonzero_data"), mask), lut, axis)
    whole = mask.repeat_interleave(lut.shape[-1], axis)
    return whole, dense[whole.bool()]


@operation("constexpr_sparse_blockwise_shift_scale", since=18, constant=True)
def constexpr_sparse_blockwise_shift_scale(call: Call) -> tuple[Tensor, Tensor]:
    """``iOS18.constexpr_sparse_blockwise_shift_scale``: ``scale (data - offset)`` of what a mask keeps.

    Gives the mask and the values it keeps.
    """
    mask = call.tensor("data_mask")
    dense = _shift_scale(call, _spread(call, call.tensor("nonzero_data").float(), mask))
    return mask, dense[mask.bool()]


def _vector_axis(call: Call, rank: int) -> int:
    return call.integer("vector_axis", 0) % rank


def _spread(call: Call, values: Tensor, mask: Tensor) -> Tensor:
    kept = mask.bool()
    if int(kept.sum()) != values.numel():
        raise call.refuse(f"{int(kept.sum())} values, as many as the mask keeps", values.numel())
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[kept] = values.flatten()
    return dense


def _blocks(call: Call, values: Tensor, shape: torch.Size) -> Tensor:
    """Repeat one value a block so that there is one an element."""
    for axis, (size, count) in enumerate(zip(shape, values.shape, strict=False)):
        if size % count:
            raise call.refuse(f"blocks that divide axis {axis} of {list(shape)}", list(values.shape))
        if 1 < count < size:
            values = values.repeat_interleave(size // count, axis)
    return values


def _shift_scale(call: Call, data: Tensor) -> Tensor:
    offset = call.maybe("offset")
    if offset is not None:
        data = data - _blocks(call, offset.float(), data.shape)
    return data * _blocks(call, call.tensor("scale").float(), data.shape)


def _look_up(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """Look up each index in the table of its block; entries with several values are laid out along ``axis``.

    Args:
        indices: ``[d_0, ..., d_k]``.
        lut: ``[b_0, ..., b_k, palettes, vector]``; each ``b`` divides its ``d``.
        axis: Of vectors.
    """
    palettes, vector = lut.shape[-2:]
    table = torch.zeros(1, dtype=torch.int64)
    for size, count in zip(indices.shape, lut.shape[:-2], strict=True):  # the number of each element's table
        table = table[..., None] * count + torch.arange(size) // (size // count)
    rows = table.reshape(indices.shape) * palettes + indices.long()
    entries = lut.reshape(-1, vector)[rows]
    return entries.movedim(-1, axis + 1).flatten(axis, axis + 1)
