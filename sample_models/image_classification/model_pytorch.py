"""ResNet8 as MLPerf Tiny publishes it (Banbury et al. 2021), after He et al. 2016.

The published network keeps biases in its convolutions although batch normalization follows, and has no normalization
in the shortcuts; so does this one, and the parameter counts agree.
"""

from __future__ import annotations

import torch
from torch import nn


class Stack(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.

    Args:
        inputs, outputs: Channels.
        stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C_in, H, W]`` to ``[B, C_out, H/stride, W/stride]``."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(self.shortcut(x) + y)


class ResNet8(nn.Module):
    """Stem, three stacks, mean over positions, classifier.

    Args:
        classes: Number of classes.
        width: Channels of the first stack; doubled in each of the next.
    """

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stack1 = Stack(width, width, 1)
        self.stack2 = Stack(width, 2 * width, 2)
        self.stack3 = Stack(2 * width, 4 * width, 2)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, 32, 32]`` to scores ``[B, classes]``."""
        x = self.relu(self.norm(self.stem(image)))
        return self.classifier(self.stack3(self.stack2(self.stack1(x))).mean((2, 3)))


def build(classes: int = 10, width: int = 16) -> nn.Module:
    """Build the network, untrained: 78,666 parameters, moving averages included."""
    return ResNet8(classes, width)
