"""Random values (``iOS15/random.py``).

Core ML's generators are not published: values have the right distribution, and are the same in every run of a program
(``seed``, else the operation's name, starts the generator), but they are not those that Core ML gives.
"""

from __future__ import annotations

import zlib

import torch
from torch import Generator, Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation


def _generator(call: Call) -> Generator:
    seed = call.integer("seed", -1)
    return torch.Generator().manual_seed(seed if seed >= 0 else zlib.crc32(call.operation.name.encode()))


@operation("random_bernoulli")
def random_bernoulli(call: Call) -> Tensor:
    """``iOS15.random_bernoulli``: 1 with probability ``prob``, else 0."""
    draws = torch.rand(call.integers("shape"), generator=_generator(call))
    return (draws < call.number("prob", 0.5)).float()


@operation("random_categorical")
def random_categorical(call: Call) -> Tensor:
    """``iOS15.random_categorical``: ``size`` draws of a class for each row, from logits or probabilities."""
    x, count = call.tensor(), call.integer("size", 1)
    weights = x.softmax(-1) if call.word("mode", "logits") == "logits" else x
    draws = torch.multinomial(weights.reshape(-1, x.shape[-1]), count, replacement=True, generator=_generator(call))
    return draws.reshape([*x.shape[:-1], count])


@operation("random_normal")
def random_normal(call: Call) -> Tensor:
    """``iOS15.random_normal``: with ``mean`` and ``stddev``."""
    draws = torch.randn(call.integers("shape"), generator=_generator(call))
    return draws * call.number("stddev", 1.0) + call.number("mean", 0.0)


@operation("random_uniform")
def random_uniform(call: Call) -> Tensor:
    """``iOS15.random_uniform``: from ``low``, included, to ``high``, left out."""
    low, high = call.number("low", 0.0), call.number("high", 1.0)
    return low + (high - low) * torch.rand(call.integers("shape"), generator=_generator(call))
