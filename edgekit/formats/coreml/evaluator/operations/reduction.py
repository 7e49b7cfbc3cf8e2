"""Reductions (``iOS15/reduction.py``, ``iOS17/reduction.py``)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation

_Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _reduce(name: str, function: _Reduction, what: str, *, exact: bool = False) -> None:
    def execute(call: Call) -> Tensor:
        x = call.tensor()
        axes = call.integers("axes", ()) or list(range(x.ndim))
        return function(x, axes, call.flag("keep_dims")) if axes else function(x.reshape(1), [0], False)

    execute.__doc__ = f"``iOS15.{name}``: {what} over ``axes`` (all when not given)."
    operation(name, exact=exact)(execute)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Multiply along each axis, the last one first: torch multiplies along one axis at a time."""
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep) if x.is_floating_point() else x.double().mean(axes, keepdim=keep).to(x.dtype)


_reduce("reduce_max", lambda x, axes, keep: x.amax(axes, keepdim=keep), "the greatest value", exact=True)
_reduce("reduce_min", lambda x, axes, keep: x.amin(axes, keepdim=keep), "the least value", exact=True)
_reduce("reduce_sum", _sum, "the sum")
_reduce("reduce_mean", _mean, "the mean")
_reduce("reduce_prod", _product, "the product")
_reduce("reduce_l1_norm", lambda x, axes, keep: _sum(x.abs(), axes, keep), "the sum of magnitudes")
_reduce("reduce_l2_norm", lambda x, axes, keep: _sum(x * x, axes, keep).sqrt(), "the root of the sum of squares")
_reduce("reduce_log_sum", lambda x, axes, keep: _sum(x, axes, keep).log(), "the logarithm of the sum")
_reduce("reduce_log_sum_exp", lambda x, axes, keep: x.logsumexp(axes, keepdim=keep), "log of the sum of exponentials")
_reduce("reduce_sum_square", lambda x, axes, keep: _sum(x * x, axes, keep), "the sum of squares")


@operation("reduce_argmax", exact=True)
def reduce_argmax(call: Call) -> Tensor:
    """``iOS15.reduce_argmax``: the first place of the greatest value along ``axis``; iOS17 chooses the dtype."""
    return torch.argmax(call.tensor(), call.integer("axis", -1), keepdim=call.flag("keep_dims"))


@operation("reduce_argmin", exact=True)
def reduce_argmin(call: Call) -> Tensor:
    """``iOS15.reduce_argmin``: the first place of the least value along ``axis``; iOS17 chooses the dtype."""
    return torch.argmin(call.tensor(), call.integer("axis", -1), keepdim=call.flag("keep_dims"))
