"""One int8 program means one set of numbers: TFLite, ExecuTorch and exact integer arithmetic agree to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formats.int8_runs import int8_program, run_format, run_program, settled
from torch import Tensor, nn

from edgekit.program.integer_reference import IntegerReference
from edgekit.program.serialize import load_program

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning", "ignore::DeprecationWarning"
)


def unit(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1, groups: int = 1, act=nn.ReLU
) -> nn.Sequential:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(side // 2 for side in sides)
    layers = [nn.Conv2d(inputs, outputs, sides, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if act is None else [act()]))


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(inputs, outputs, stride=stride), unit(outputs, outputs, act=None))
        self.shortcut = nn.Identity() if inputs == outputs else unit(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            unit(inputs, wide, 1, act=nn.ReLU6),
            unit(wide, wide, 3, stride, wide, act=nn.ReLU6),
            unit(wide, outputs, 1, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Gated(nn.Module):
    """Depthwise 5x5, squeeze and excite with a hard sigmoid, hard swish: MobileNetV3's block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = unit(channels, 32, 1, act=nn.Hardswish)
        self.spread = unit(32, 32, 5, 1, 32, act=nn.Hardswish)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(32, 8, 1), nn.ReLU(), nn.Conv2d(8, 32, 1), nn.Hardsigmoid())
        self.project = unit(32, channels, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.spread(self.expand(x))
        return x + self.project(wide * self.gate(self.pool(wide)))


class Classifier(nn.Module):
    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def separable(channels: int, blocks: int) -> nn.Sequential:
    layers = [unit(1, channels, (10, 4), 2)]
    for _ in range(blocks):
        layers += [unit(channels, channels, groups=channels), unit(channels, channels, 1)]
    return nn.Sequential(*layers)


NETS = {
    "residual": (lambda: Classifier(nn.Sequential(unit(3, 8), Residual(8, 8, 1), Residual(8, 16, 2)), 16), (3, 32, 32)),
    "inverted residual": (
        lambda: Classifier(
            nn.Sequential(unit(3, 8, stride=2, act=nn.ReLU6), Inverted(8, 8, 1), Inverted(8, 12, 2)),
            12,
        ),
        (3, 48, 48),
    ),
    "gated": (
        lambda: Classifier(nn.Sequential(unit(3, 8, stride=2, act=nn.Hardswish), Gated(8)), 8),
        (3, 32, 32),
    ),
    "separable": (lambda: Classifier(separable(32, 2), 32), (1, 49, 10)),
}


def _noise(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETS)
def test_formats_agree_to_the_bit_in_one_delegate_when_int8(name: str, tmp_path: Path) -> None:
    build, shape = NETS[name]
    torch.manual_seed(0)
    free = name == "residual"  # once with batches of several samples
    module = settled(build(), shape)
    program = int8_program(module, _noise(16, shape, 3), tmp_path, dynamic_batch=free)
    samples = _noise(4, shape, 4)
    runs = [run_format(program, kind, samples, tmp_path, batch=2 if free else 1) for kind in ("tflite", "executorch")]
    for run in runs:
        assert run.inspection.partitions == 1
        assert [operator.name for operator in run.inspection.operators if not operator.delegated] == []
    (tflite,), (executorch,) = (run.outputs for run in runs)
    np.testing.assert_array_equal(tflite, executorch)
    graph = load_program(program.path).module(check_guards=False)
    with torch.no_grad():
        exact = [IntegerReference(graph).run(sample)[0].numpy() for sample in samples.split(1)]
    np.testing.assert_array_equal(tflite, np.concatenate(exact))
    (expected,) = run_program(program, samples)
    steps = np.abs(tflite - expected) / program.output_steps[0]
    print(f"{name}: equal to the program in {np.mean(steps < 0.5):.1%}, at most {steps.max():.1f} steps apart")
    assert steps.max() < 3
