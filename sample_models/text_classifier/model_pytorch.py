"""A transformer encoder for short sentences: token ids and a padding mask in, class scores out."""

from __future__ import annotations

import torch
from torch import nn

from sample_models.attention_pytorch import TransformerBlock

HIDDEN_SCORE = -1e4
"""Added to the attention scores of padding: far below any real score, yet finite in fp16 (smallest: -65504)."""


class TextClassifier(nn.Module):
    """Embedding, learned positions, transformer blocks, mean over the real tokens, classifier.

    Args:
        vocabulary: Number of token ids.
        length: Tokens a sentence, padding included.
        classes: Number of classes.
        width: Features a token.
        depth: Number of blocks.
        heads: Attention heads.
    """

    def __init__(self, vocabulary: int, length: int, classes: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, 2 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Classify sentences.

        Args:
            ids: Token ids, int64 ``[B, length]``; 0 where there is padding.
            mask: int64 ``[B, length]``, 1 for tokens, 0 for padding.

        Returns:
            Scores ``[B, classes]``.
        """
        real = mask.to(torch.float32)
        bias = ((1 - real) * HIDDEN_SCORE)[:, None, None, :]
        x = self.embedding(ids) + self.positions
        for block in self.blocks:
            x = block(x, bias)
        weights = real[:, :, None]
        mean = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return self.classifier(mean)


def build(
    vocabulary: int = 64, length: int = 24, classes: int = 3, width: int = 48, depth: int = 2, heads: int = 4
) -> nn.Module:
    """Build the network, untrained. ``vocabulary`` and ``length`` must fit the data."""
    return TextClassifier(vocabulary, length, classes, width, depth, heads)
