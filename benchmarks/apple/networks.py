"""The networks that published latencies of Apple chips are about, with drawn weights: shapes decide the time.

MobileNetV2 and MobileNetV3-Small are those of ``sample_models``; here are ResNet-50 and MobileOne.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sample_models.mobilenet_v2.model_pytorch import MobileNetV2
from sample_models.mobilenet_v3_small.model_pytorch import MobileNetV3Small

IMAGE = 224
CLASSES = 1000

# Blocks, channels inside, stride of the first (He et al. 2015, table 1).
RESNET50_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
# Width multipliers of the four stages (Vasu et al. 2022, table 12), and whether the last blocks squeeze and excite.
MOBILEONE_WIDTHS = {
    "s0": ((0.75, 1.0, 1.0, 2.0), False),
    "s1": ((1.5, 1.5, 2.0, 2.5), False),
    "s2": ((1.5, 2.0, 2.5, 4.0), False),
    "s3": ((2.0, 2.5, 3.0, 4.0), False),
    "s4": ((3.0, 3.5, 3.5, 4.0), True),
}
MOBILEONE_BLOCKS = (2, 8, 10, 1)
MOBILEONE_CHANNELS = (64, 128, 256, 512)


def conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides, as torchvision's does), 1x1, and a shortcut."""

    def __init__(self, inputs: int, inside: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inside
        self.body = nn.Sequential(
            conv_norm_relu(inputs, inside, 1),
            conv_norm_relu(inside, inside, 3, stride),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C_in, H, W]`` to ``[B, 4 * inside, H/stride, W/stride]``."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50: 25,557,032 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm_relu(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for count, inside, first_stride in RESNET50_STAGES:
            for number in range(count):
                blocks.append(Bottleneck(channels, inside, first_stride if number == 0 else 1))
                channels = 4 * inside
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, H, W]`` to scores ``[B, 1000]``."""
        return self.classifier(self.blocks(self.stem(image)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Scale channels by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 16, 1)
        self.expand = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, C, H, W]`` to the same shape."""
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


def fused_block(inputs: int, outputs: int, kernel: int, stride: int, groups: int, excites: bool) -> nn.Sequential:
    """A block of MobileOne as it is deployed: its branches are one convolution."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(conv, SqueezeExcite(outputs) if excites else nn.Identity(), nn.ReLU())


class MobileOne(nn.Module):
    """MobileOne with its branches folded, as the published latencies have it."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        widths, excites = MOBILEONE_WIDTHS[variant]
        channels = min(64, int(64 * widths[0]))
        blocks = [fused_block(3, channels, 3, 2, 1, False)]
        for stage, (count, base, width) in enumerate(zip(MOBILEONE_BLOCKS, MOBILEONE_CHANNELS, widths, strict=True)):
            excited = {2: count // 2, 3: count}.get(stage, 0) if excites else 0
            for number in range(count):
                outputs, stride, scales = int(base * width), 2 if number == 0 else 1, number >= count - excited
                blocks.append(fused_block(channels, channels, 3, stride, channels, scales))
                blocks.append(fused_block(channels, outputs, 1, 1, 1, scales))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``[B, 3, H, W]`` to scores ``[B, 1000]``."""
        return self.classifier(self.blocks(image).mean((2, 3)))


def build(network: str) -> nn.Module:
    """Build a network, its weights drawn with a fixed seed: ``mobilenet_v2``, ``resnet50``, ``mobileone_s0`` ..."""
    torch.manual_seed(0)
    if network.startswith("mobileone_"):
        return MobileOne(network.removeprefix("mobileone_")).eval()
    makers: dict[str, Any] = {
        "mobilenet_v2": lambda: MobileNetV2(CLASSES),
        "mobilenet_v3_small": lambda: MobileNetV3Small(CLASSES),
        "resnet50": ResNet50,
    }
    return makers[network]().eval()
