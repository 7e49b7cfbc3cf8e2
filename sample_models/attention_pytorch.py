"""The transformer block that the attention models share (Vaswani et al. 2017, normalization first)."""

from __future__ import annotations

import torch
from torch import nn


class Attention(nn.Module):
    """Multi-head attention of a sequence to itself, written out as products and a softmax.

    Separate projections and an explicit softmax lower to plain matrix products on every mobile runtime; the fused
    operator decomposes to a guarded softmax that leaves the accelerated kernels.

    Args:
        width: Features a token.
        heads: Number of heads; divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Attend.

        Args:
            x: ``[B, T, width]``.
            bias: Added to the scores, broadcast to ``[B, heads, T, T]``; a large negative number hides a token.
        """
        batch, length, width = x.shape
        query, key, value = (
            layer(x).reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = (query @ key.transpose(2, 3)) * (width // self.heads) ** -0.5
        if bias is not None:
            scores = scores + bias
        mixed = scores.softmax(-1) @ value
        return self.project(mixed.transpose(1, 2).reshape(batch, length, width))


class TransformerBlock(nn.Module):
    """Attention, then two layers a token, each beside an identity.

    Args:
        width: Features a token.
        heads: Attention heads.
        hidden: Features inside the two layers.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.reduce = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``[B, T, width]`` to the same shape; ``bias`` as in :class:`Attention`."""
        x = x + self.attention(self.norm1(x), bias)
        return x + self.reduce(self.activation(self.expand(self.norm2(x))))
