"""Which weights to keep: pure functions from a weight tensor to a mask of its shape (True: kept).

Ties go to the weight that comes first in memory, so that equal weights give equal masks on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GROUP", "magnitude_mask", "paired_mask"]

GROUP = 4
"""Weights of one group of the 2:4 pattern."""


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Drop the weights of least magnitude (Han et al. 2015): exactly ``round(sparsity * n)`` of ``n``.

    Args:
        weight: Any shape.
        sparsity: Share to drop, 0 to 1.

    Returns:
        bool, of the weight's shape and device.

    Example:
        >>> magnitude_mask(torch.tensor([0.5, -0.1, 2.0, 0.2]), 0.5).tolist()
        [True, False, True, False]
    """
    magnitudes = weight.detach().abs().flatten()
    dropped = round(sparsity * magnitudes.numel())
    mask = torch.ones_like(magnitudes, dtype=torch.bool)
    mask[torch.sort(magnitudes, stable=True).indices[:dropped]] = False
    return mask.view(weight.shape)


def paired_mask(weight: Tensor, input_dim: int, share: float = 1.0) -> Tensor:
    """Drop the two smallest of every four neighbours along the input dimension (Mishra et al. 2021, 2:4 sparsity).

    Args:
        weight: For a convolution ``[C_out, C_in, H, W]``, for a linear layer ``[C_out, C_in]``.
        input_dim: The dimension that inputs lie along; its size is a multiple of four.
        share: Of the groups, those that lose the least magnitude first; below 1 only on the way to the full pattern.

    Returns:
        bool, of the weight's shape and device.

    Raises:
        ValueError: The input dimension's size is no multiple of four.

    Example:
        >>> paired_mask(torch.tensor([[0.5, -0.1, 2.0, 0.2]]), 1).tolist()
        [[True, False, True, False]]
    """
    magnitudes = weight.detach().abs().movedim(input_dim, -1)
    if magnitudes.shape[-1] % GROUP:
        raise ValueError(f"expected an input dimension that is a multiple of {GROUP}; received {magnitudes.shape[-1]}")
    groups = magnitudes.reshape(-1, GROUP)
    ordered = torch.sort(groups, dim=1, stable=True)
    pairs = ordered.indices[:, : GROUP // 2]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(1, pairs, False)
    untouched = len(groups) - round(share * len(groups))
    if untouched:
        losses = ordered.values[:, : GROUP // 2].sum(dim=1)
        dearest = torch.sort(losses, stable=True).indices[len(groups) - untouched :]
        mask[dearest] = True
    return mask.view(magnitudes.shape).movedim(-1, input_dim).contiguous()
