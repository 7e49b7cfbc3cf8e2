"""Write a MobileNet-like float .tflite: long enough a run (milliseconds) that two decimals of a tool are no error."""

from __future__ import annotations

import sys
from pathlib import Path

import litert_torch
import torch
from torch import nn


def depthwise_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1),
        nn.ReLU6(),
    )


def build() -> nn.Module:
    torch.manual_seed(0)
    widths = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    blocks = [depthwise_block(*width) for width in widths]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100))
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(), *blocks, *head).eval()


if __name__ == "__main__":
    converted = litert_torch.convert(build(), (torch.zeros(1, 3, 160, 160),))
    converted.export(str(Path(sys.argv[1])))
