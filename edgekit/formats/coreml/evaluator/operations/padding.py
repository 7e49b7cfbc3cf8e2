"""Padding that convolutions and pools share. It registers nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call

Pads = list[tuple[int, int]]
"""Elements before and after each spatial dimension."""


def window_pads(
    call: Call, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads:
    """Return the padding that ``pad_type`` asks for.

    ``valid``: none. ``custom``: the argument ``pad``. ``same``: as TensorFlow's SAME, the output has
    ``ceil(size / stride)`` elements, and where the total is odd the greater half comes after; ``same_lower``: before.
    """
    kind = call.word("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(kernel)
    if kind == "custom":
        pad = call.integers("pad", [0] * (2 * len(kernel)))
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(kernel))]
    if kind not in ("same", "same_lower"):
        raise call.refuse("pad_type valid, same, same_lower or custom", kind)
    pads = []
    for size, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        needed = max(0, (-(-size // stride) - 1) * stride + (extent - 1) * dilation + 1 - size)
        pads.append(halves(needed, kind))
    return pads


def halves(total: int, kind: str) -> tuple[int, int]:
    """Split padding in two: ``same`` puts the greater half after, ``same_lower`` before."""
    less, more = total // 2, total - total // 2
    return (less, more) if kind == "same" else (more, less)


def is_symmetric(pads: Pads) -> bool:
    """Whether each dimension is padded by as much before as after."""
    return all(before == after for before, after in pads)


def pad_last(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Pad the last dimensions with one value; negative padding crops."""
    if not any(before or after for before, after in pads):
        return x
    flat = [amount for pair in reversed(pads) for amount in pair]
    return functional.pad(x, flat, value=value)
