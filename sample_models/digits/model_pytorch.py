"""A residual network for 8×8 images: three convolutions wide enough to learn, small enough to train in seconds."""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """Two 3×3 convolutions beside an identity (He et al. 2016, figure 2).

    Args:
        channels: Of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        y = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(x + self.norm2(self.conv2(y)))


class DigitsNet(nn.Module):
    """Stem, residual block, a stride-2 convolution, residual block, mean over positions, classifier.

    Args:
        width: Channels before the stride; twice as many after it.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block1 = Residual(width)
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.block2 = Residual(2 * width)
        self.classifier = nn.Linear(2 * width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 1, 8, 8]`` to scores of the ten digits ``[B, 10]``."""
        features = self.block2(self.down(self.block1(self.stem(image))))
        return self.classifier(features.mean((2, 3)))


def build(width: int = 16) -> nn.Module:
    """Build the network, untrained."""
    return DigitsNet(width)
