"""MobileNetV3-Small (Howard et al. 2019, table 2)."""

from __future__ import annotations

import torch
from torch import nn

from sample_models.mobilenet_v3_small.blocks import BLOCKS, NORM_EPS


def rounded(channels: float) -> int:
    """Round to a multiple of 8 that is not more than a tenth below, as the published code does.

    Example:
        >>> rounded(96 / 4)
        24
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: type[nn.Module] | None = None
) -> nn.Sequential:
    """Make a convolution, a batch normalization and, if any, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=NORM_EPS),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all (Hu et al. 2018), with a hard sigmoid.

    Args:
        channels: Of the input; the bottleneck has a quarter of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = rounded(channels / 4)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.relu(self.reduce(means))))


class Bottleneck(nn.Module):
    """Expand, filter each channel, gate, project; a shortcut where the shape stays.

    Args:
        inputs, hidden, outputs: Channels.
        kernel, stride: Of the depthwise convolution.
        squeeze: Whether channels are gated.
        activation: Of the first two convolutions.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        squeeze: bool,
        activation: type[nn.Module],
    ) -> None:
        super().__init__()
        self.expand = nn.Identity() if hidden == inputs else conv_norm(inputs, hidden, 1, activation=activation)
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, groups=hidden, activation=activation)
        self.squeeze = SqueezeExcite(hidden) if squeeze else nn.Identity()
        self.project = conv_norm(hidden, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C_in, H, W]`` to ``[B, C_out, H/stride, W/stride]``."""
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.has_shortcut else y


class MobileNetV3Small(nn.Module):
    """Stem, eleven bottlenecks, head, mean over positions, two-layer classifier.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, stride=2, activation=nn.Hardswish)
        blocks = []
        channels = 16
        for kernel, hidden, outputs, squeeze, hard_swish, stride in BLOCKS:
            activation = nn.Hardswish if hard_swish else nn.ReLU
            blocks.append(
                Bottleneck(
                    channels, hidden, outputs, kernel=kernel, stride=stride, squeeze=squeeze, activation=activation
                )
            )
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_norm(channels, 6 * channels, 1, activation=nn.Hardswish)
        self.hidden = nn.Linear(6 * channels, 1024)
        self.activation = nn.Hardswish()
        self.classifier = nn.Linear(1024, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, H, W]``, H and W multiples of 32, to scores ``[B, classes]``."""
        features = self.head(self.blocks(self.stem(image))).mean((2, 3))
        return self.classifier(self.activation(self.hidden(features)))


def build(classes: int = 10) -> nn.Module:
    """Build the network, untrained: 2,542,856 trainable parameters with 1000 classes."""
    return MobileNetV3Small(classes)
