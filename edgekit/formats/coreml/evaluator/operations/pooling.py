"""Pools (``iOS15/pool.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.operations.padding import Pads, pad_last, window_pads
from edgekit.formats.coreml.evaluator.registry import Call, operation

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVG = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True, slots=True)
class _Windows:
    """How a pool moves: ``rest`` is what ``ceil_mode`` adds after the padding, which no average counts."""

    kernel: list[int]
    strides: list[int]
    pads: Pads
    rest: Pads

    @property
    def all_pads(self) -> Pads:
        """Padding, and what ``ceil_mode`` adds."""
        return [(before, after + more) for (before, after), (_, more) in zip(self.pads, self.rest, strict=True)]


def _windows(call: Call, x: Tensor) -> _Windows:
    """``ceil_mode`` counts a last, incomplete window too, unless it would start in the padding (as PyTorch does)."""
    kernel = call.integers("kernel_sizes")
    strides = call.integers("strides", [1] * len(kernel))
    sizes = list(x.shape[2:])
    pads = window_pads(call, sizes, kernel, strides, [1] * len(kernel))
    rest = [(0, 0)] * len(kernel)
    if call.flag("ceil_mode") and call.word("pad_type", "valid") in ("valid", "custom"):
        for i, (before, after) in enumerate(pads):
            room = sizes[i] + before + after - kernel[i]
            count = -(-room // strides[i]) + 1
            if (count - 1) * strides[i] >= sizes[i] + before:
                count -= 1
            rest[i] = (0, max(0, (count - 1) * strides[i] - room))
    return _Windows(kernel, strides, pads, rest)


@operation("max_pool", exact=True)
def max_pool(call: Call) -> Tensor:
    """``iOS15.max_pool``: padding never wins, it counts as minus infinity."""
    x = call.tensor().float()
    windows = _windows(call, x)
    padded = pad_last(x, windows.all_pads, -torch.inf)
    return _MAX[len(windows.kernel)](padded, windows.kernel, windows.strides)


@operation("avg_pool")
def avg_pool(call: Call) -> Tensor:
    """``iOS15.avg_pool``: zeros of the padding count, unless ``exclude_padding_from_average``."""
    x = call.tensor().float()
    windows = _windows(call, x)
    pool = _AVG[len(windows.kernel)]
    mean = pool(pad_last(x, windows.all_pads), windows.kernel, windows.strides)
    excluded = windows.all_pads if call.flag("exclude_padding_from_average") else windows.rest
    if not any(before or after for before, after in excluded):
        return mean
    return mean / pool(_counted(x, windows, excluded), windows.kernel, windows.strides)


def _counted(x: Tensor, windows: _Windows, excluded: Pads) -> Tensor:
    """One where an element counts, zero where it is excluded; one batch and channel."""
    counted = torch.ones(1, 1, *x.shape[2:])
    if excluded is windows.rest:
        counted = pad_last(counted, windows.pads, 1.0)
    return pad_last(counted, excluded)


@operation("l2_pool")
def l2_pool(call: Call) -> Tensor:
    """``iOS15.l2_pool``: the root of the sum of squares in each window."""
    x = call.tensor().float()
    windows = _windows(call, x)
    pool: Callable[..., Tensor] = _AVG[len(windows.kernel)]
    squares = pad_last(x * x, windows.all_pads)
    area = torch.Size(windows.kernel).numel()
    return (pool(squares, windows.kernel, windows.strides) * area).sqrt()
