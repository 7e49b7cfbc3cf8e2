"""Activations with inexact integer kernels: the artifact computes what the program says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formats.int8_runs import Outputs, int8_program, run_format, run_program
from torch import nn

from edgekit.formats.tflite import lowering
from edgekit.records import Program

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning", "ignore::DeprecationWarning"
)
ACTIVATIONS = {
    "hardswish": (nn.Hardswish(), 2.0),
    "narrow hardswish": (nn.Hardswish(), 0.7),
    "leaky_relu": (nn.LeakyReLU(0.1), 2.0),
    "tanh": (nn.Tanh(), 1.0),
    "narrow tanh": (nn.Tanh(), 0.3),
}


def _scale(factor: float) -> nn.Conv2d:
    layer = nn.Conv2d(4, 4, 1, groups=4, bias=False)
    nn.init.constant_(layer.weight, factor)
    return layer


class Branches(nn.Module):
    """Each activation between two integer layers, the second of which multiplies with one."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_scale(gain), activation, _scale(1.0)) for activation, gain in ACTIVATIONS.values()
        )

    def forward(self, x):
        return [branch(x) for branch in self.branches]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    calibration = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.5
    return int8_program(Branches().eval(), calibration, tmp_path_factory.mktemp("branches"))


def _samples() -> torch.Tensor:
    return torch.linspace(-6.0, 6.0, 4 * 16 * 16).reshape(1, 4, 16, 16)  # every code of every input


def _steps_apart(program: Program, found: Outputs) -> dict[str, float]:
    expected = run_program(program, _samples())
    return {
        name: float(np.abs(one - other).max() / step)
        for name, one, other, step in zip(ACTIVATIONS, found, expected, program.output_steps, strict=True)
    }


def test_activations_equal_the_program_inside_one_delegate(program: Program, tmp_path: Path) -> None:
    run = run_format(program, "tflite", _samples(), tmp_path)
    assert _steps_apart(program, run.outputs) == dict.fromkeys(ACTIVATIONS, 0.0)
    assert run.inspection.partitions == 1
    assert all(operator.delegated for operator in run.inspection.operators)


def test_activations_part_from_the_program_when_left_to_integer_kernels(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # when this no longer fails for an activation, it need not be written out any more
    monkeypatch.setattr(lowering, "keep_float", lambda graph: graph)
    run = run_format(program, "tflite", _samples(), tmp_path)
    apart = _steps_apart(program, run.outputs)
    assert apart["narrow hardswish"] > 0.99
    assert apart["leaky_relu"] > 0.99
    assert "HARD_SWISH" in {operator.type for operator in run.inspection.operators if not operator.delegated}


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x))))


def test_tanh_equals_the_program_when_it_ends_the_net(tmp_path: Path) -> None:
    # with the fixed scale of TFLite's integer kernel, half of these outputs were up to two steps off
    torch.manual_seed(0)
    samples = torch.randn(64, 16)
    dense = int8_program(Dense().eval(), samples, tmp_path)
    (found,) = run_format(dense, "tflite", samples, tmp_path).outputs
    (expected,) = run_program(dense, samples)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
