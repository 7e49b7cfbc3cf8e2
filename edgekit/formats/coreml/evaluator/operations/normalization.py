"""Normalisations (``iOS15/normalization.py``, ``iOS17/normalization.py``)."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation


def _by_channel(call: Call, name: str, rank: int) -> Tensor | None:
    values = call.maybe(name)
    return None if values is None else values.float().reshape([1, -1, *([1] * (rank - 2))])


@operation("batch_norm")
def batch_norm(call: Call) -> Tensor:
    """``iOS15.batch_norm``: ``gamma (x - mean) / sqrt(variance + epsilon) + beta``, by channel (axis 1)."""
    x = call.tensor()
    mean, variance, gamma, beta = (call.maybe(name) for name in ("mean", "variance", "gamma", "beta"))
    return functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, call.number("epsilon", 1e-5))


@operation("instance_norm")
def instance_norm(call: Call) -> Tensor:
    """``iOS15.instance_norm``: mean and variance over the spatial dimensions of each sample and channel."""
    x = call.tensor()
    axes = list(range(2, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    result = (x - mean) / (variance + call.number("epsilon", 1e-5)).sqrt()
    gamma, beta = (_by_channel(call, name, x.ndim) for name in ("gamma", "beta"))
    result = result if gamma is None else result * gamma
    return result if beta is None else result + beta


@operation("layer_norm")
def layer_norm(call: Call) -> Tensor:
    """``iOS15.layer_norm``: over ``axes`` (all when not given); gamma and beta have the shape of those axes."""
    x = call.tensor()
    axes = sorted(axis % x.ndim for axis in call.integers("axes", range(x.ndim)))
    gamma, beta = (call.maybe(name) for name in ("gamma", "beta"))
    epsilon = call.number("epsilon", 1e-5)
    if axes == list(range(x.ndim - len(axes), x.ndim)):
        return functional.layer_norm(x, [x.shape[axis] for axis in axes], gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    result = (x - mean) / (variance + epsilon).sqrt()
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    result = result if gamma is None else result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


@operation("l2_norm")
def l2_norm(call: Call) -> Tensor:
    """``iOS15.l2_norm``: ``x / sqrt(sum(x^2) + epsilon)`` over the last three dimensions, the others are batch."""
    x = call.tensor()
    squares = (x * x).sum([-3, -2, -1], keepdim=True)
    return x / (squares + call.number("epsilon", 1e-6)).sqrt()


@operation("local_response_norm")
def local_response_norm(call: Call) -> Tensor:
    """``iOS15.local_response_norm``: ``x / (k + alpha / size * sum of squares over size channels) ^ beta``."""
    alpha, beta, k = (call.number(name, value) for name, value in (("alpha", 1e-4), ("beta", 0.75), ("k", 1.0)))
    return functional.local_response_norm(call.tensor(), call.integer("size"), alpha, beta, k)
