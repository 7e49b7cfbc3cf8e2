"""MobileNetV2 (Sandler et al. 2018, table 2)."""

from __future__ import annotations

import torch
from torch import nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels at width 1, number of blocks, stride of the first."""


def rounded(channels: float) -> int:
    """Round to a multiple of 8 that is not more than a tenth below, as the published code does.

    Example:
        >>> rounded(24 * 0.35)
        8
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class ConvNormReLU(nn.Sequential):
    """Convolution, batch normalization, ReLU6.

    Args:
        inputs, outputs: Channels.
        kernel: Width of the square kernel; padded to keep the size at stride 1.
        stride: Of the convolution.
        groups: Of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without an activation; a shortcut where the shape stays.

    Args:
        inputs, outputs: Channels.
        stride: Of the depthwise convolution.
        expansion: Hidden channels an input channel.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvNormReLU(inputs, hidden, 1) if expansion != 1 else nn.Identity()
        self.depthwise = ConvNormReLU(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C_in, H, W]`` to ``[B, C_out, H/stride, W/stride]``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """Stem, seventeen inverted residuals, head, mean over positions, classifier.

    Args:
        classes: Number of classes.
        width: Multiplier of every layer's channels; the head's 1280 only grow.
        dropout: Before the classifier, in training.
    """

    def __init__(self, classes: int = 10, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        channels = rounded(32 * width)
        self.stem = ConvNormReLU(3, channels, 3, stride=2)
        blocks = []
        for expansion, outputs, count, first_stride in STAGES:
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(InvertedResidual(channels, rounded(outputs * width), stride, expansion))
                channels = rounded(outputs * width)
        self.blocks = nn.Sequential(*blocks)
        last = rounded(1280 * max(1.0, width))
        self.head = ConvNormReLU(channels, last, 1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.Linear(last, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, H, W]``, H and W multiples of 32, to scores ``[B, classes]``."""
        features = self.head(self.blocks(self.stem(image)))
        return self.classifier(self.dropout(features.mean((2, 3))))


def build(classes: int = 10, width: float = 1.0, dropout: float = 0.0) -> nn.Module:
    """Build the network, untrained: 3,504,872 trainable parameters with 1000 classes at width 1."""
    return MobileNetV2(classes, width, dropout)
