"""Products of matrices (``iOS15/linear.py``, ``iOS17/linear.py``, ``iOS18/transformers.py``)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation


@operation("linear")
def linear(call: Call) -> Tensor:
    """``iOS15.linear``: ``x @ weight.T + bias``, over the last dimension; from iOS17 on dtypes may differ."""
    bias = call.maybe("bias")
    x, weight = call.tensor(), call.tensor("weight")
    if not x.is_floating_point():
        product = x @ weight.to(x.dtype).T
        return product if bias is None else product + bias
    return functional.linear(x, weight.float(), None if bias is None else bias.float())


@operation("matmul")
def matmul(call: Call) -> Tensor:
    """``iOS15.matmul``: numpy's rules for vectors and batches; ``transpose_x`` and ``_y`` leave vectors alone."""
    x, y = call.tensor("x"), call.tensor("y")
    if call.flag("transpose_x") and x.ndim > 1:
        x = x.transpose(-1, -2)
    if call.flag("transpose_y") and y.ndim > 1:
        y = y.transpose(-1, -2)
    if x.dtype != y.dtype:
        x, y = x.float(), y.float()
    return torch.matmul(x, y)


@operation("einsum")
def einsum(call: Call) -> Tensor:
    """``iOS15.einsum``: any equation, although Core ML documents only ``nchw,nwhu->nchu`` and ``chw,whr->chr``.

    Dimensions of size 1 are broadcast along the batch, as the opset says.
    """
    return torch.einsum(call.word("equation"), *call.several("values"))


@operation("scaled_dot_product_attention", since=18)
def scaled_dot_product_attention(call: Call) -> Tensor:
    """``iOS18.scaled_dot_product_attention``: ``softmax(Q K.T / sqrt(E) + mask) V``.

    A boolean mask says what takes part; a row of which nothing takes part gives NaN, as the formula does.
    """
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    mask = call.maybe("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask
    return scores.softmax(-1) @ value
