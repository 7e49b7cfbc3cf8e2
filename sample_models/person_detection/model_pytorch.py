"""MobileNetV1 as MLPerf Tiny publishes it for visual wake words (Banbury et al. 2021), after Howard et al. 2017.

The published network keeps biases in its convolutions although batch normalization follows; so does this one, and the
parameter counts agree.
"""

from __future__ import annotations

import torch
from torch import nn

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels at width 1 and stride of each block."""


class SeparableBlock(nn.Module):
    """A 3×3 convolution a channel, then a 1×1 convolution across channels.

    Args:
        inputs, outputs: Channels.
        stride: Of the 3×3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C_in, H, W]`` to ``[B, C_out, H/stride, W/stride]``."""
        x = self.relu1(self.norm1(self.depthwise(x)))
        return self.relu2(self.norm2(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """Stem with stride 2, thirteen separable blocks, mean over positions, classifier.

    Args:
        classes: Number of classes.
        width: Multiplier of every layer's channels.
    """

    def __init__(self, classes: int = 2, width: float = 0.25) -> None:
        super().__init__()
        channels = int(32 * width)
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        blocks = []
        for outputs, stride in BLOCKS:
            blocks.append(SeparableBlock(channels, int(outputs * width), stride))
            channels = int(outputs * width)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)
        for block in blocks:
            _start_near_identity(block.depthwise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, 96, 96]`` to scores ``[B, classes]``."""
        features = self.blocks(self.relu(self.norm(self.stem(image))))
        return self.classifier(features.mean((2, 3)))


def _start_near_identity(depthwise: nn.Conv2d) -> None:
    """Let a depthwise convolution begin as a copy of its input plus a little noise (after Xiao et al. 2018).

    Twenty-seven normalized layers without a shortcut lose what images have in common when all begin at random: on
    two thousand pictures the network then stays at chance for epochs, where the published training has a hundred
    thousand pictures to get over it.
    """
    with torch.no_grad():
        depthwise.weight.mul_(0.3)
        depthwise.weight[:, :, 1, 1] += 1


def build(classes: int = 2, width: float = 0.25) -> nn.Module:
    """Build the network, untrained: 221,794 parameters at width 0.25, moving averages included."""
    return MobileNetV1(classes, width)
