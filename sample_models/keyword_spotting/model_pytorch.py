"""DS-CNN as MLPerf Tiny publishes it (Banbury et al. 2021), after Zhang et al. 2017, "Hello Edge".

The published network keeps biases in its convolutions although batch normalization follows; so does this one, and the
parameter counts agree. Its dropout, which no deployed network has, is left out.
"""

from __future__ import annotations

import torch
from torch import nn


class SeparableBlock(nn.Module):
    """A 3×3 convolution a channel, then a 1×1 convolution across channels.

    Args:
        channels: Of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        x = self.relu1(self.norm1(self.depthwise(x)))
        return self.relu2(self.norm2(self.pointwise(x)))


class DSCNN(nn.Module):
    """Stem with stride 2, separable blocks, mean over positions, classifier.

    Args:
        classes: Number of keywords, silence and unknown included.
        channels: Of every layer.
        blocks: Number of separable blocks.
    """

    def __init__(self, classes: int = 12, channels: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(SeparableBlock(channels) for _ in range(blocks)))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, mfcc: torch.Tensor) -> torch.Tensor:
        """Map MFCCs ``[B, 1, 49, 10]`` (time, coefficient) to scores ``[B, classes]``."""
        features = self.blocks(self.relu(self.norm(self.stem(mfcc))))
        return self.classifier(features.mean((2, 3)))


def build(classes: int = 12, channels: int = 64, blocks: int = 4) -> nn.Module:
    """Build the network, untrained: 24,908 parameters, moving averages included."""
    return DSCNN(classes, channels, blocks)
