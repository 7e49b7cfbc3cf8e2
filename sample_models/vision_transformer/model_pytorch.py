"""A vision transformer (Dosovitskiy et al. 2021) of a size for phones and tests; tokens are averaged, not classed."""

from __future__ import annotations

import torch
from torch import nn

from sample_models.attention_pytorch import TransformerBlock


class VisionTransformer(nn.Module):
    """Patches to tokens, learned positions, transformer blocks, mean over tokens, classifier.

    Args:
        classes: Number of classes.
        size: Height and width of the image; a multiple of ``patch``.
        patch: Height and width of a patch.
        width: Features a token.
        depth: Number of blocks.
        heads: Attention heads.
    """

    def __init__(self, classes: int, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, 2 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, size, size]`` to scores ``[B, classes]``."""
        x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(1))


def build(
    classes: int = 10, size: int = 32, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4
) -> nn.Module:
    """Build the network, untrained."""
    return VisionTransformer(classes, size, patch, width, depth, heads)
