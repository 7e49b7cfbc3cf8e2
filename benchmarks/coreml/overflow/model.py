"""A network whose middle leaves the range of float16: attention with squared scores, on grey values from 0 to 255.

Squared scores in place of a softmax are a way to do without exponentials. Nothing scales them down before they are
squared, and nothing in float32 tells: they are divided by their own sum right after.
"""

from __future__ import annotations

import torch
from torch import nn


class SquaredAttention(nn.Module):
    """Attention whose weights are squared scores divided by their sum.

    Args:
        width: Of queries, keys and values.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, T, C]`` to the same shape."""
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        weights = scores * scores
        return (weights / weights.sum(-1, keepdim=True)) @ self.value(x)


class RowsNet(nn.Module):
    """The eight rows of an image attend to each other.

    Args:
        width: Of a row's embedding.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.attention = SquaredAttention(width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(8 * width, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 1, 8, 8]`` from 0 to 255 to scores of the ten digits ``[B, 10]``."""
        rows = self.embed(image.squeeze(1))
        mixed = self.norm(rows + self.attention(rows))
        return self.classifier(torch.relu(self.hidden(mixed.flatten(1))))


def build(width: int = 32) -> nn.Module:
    """Build the network, untrained."""
    return RowsNet(width)
