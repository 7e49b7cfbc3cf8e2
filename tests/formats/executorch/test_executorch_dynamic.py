"""Layers whose input is quantized at run time, in nets with branches, on the real runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.recipe.schema import QuantizeRule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch and torch warn about themselves while they are imported
    from edgekit.formats.executorch.lowering import lower
    from edgekit.formats.executorch.session import open_session
    from edgekit.frameworks.pytorch.capture import export_program
    from edgekit.frameworks.pytorch.quantize import calibrate, convert, prepare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Identity(nn.Module):
    """Two convolutions beside the value that goes into them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in "12")

    def forward(self, image):
        x = self.stem(image).relu()
        return (x + self.two(self.one(x).relu())).relu()


class Projection(nn.Module):
    """Two convolutions of the same value, added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wide, self.narrow = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 1, stride=2)

    def forward(self, image):
        x = self.stem(image).relu()
        return self.wide(x) + self.narrow(x)


class Gate(nn.Module):
    """Squeeze and excitation: a mean, a convolution of it, and a product with what it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, image):
        x = self.depthwise(self.stem(image).relu())
        x = x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Identity, Projection, Gate])
def test_dynamic_program_runs_like_its_source_when_it_branches(kind, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image = torch.randn(1, 1, 8, 8)
    prepared = prepare(kind().eval(), (image,), QuantizeRule(precision="int8-dynamic"))
    calibrate(prepared, [(image,)])
    program = export_program(convert(prepared), (image,))
    lowered = lower(program, "xnnpack", "int8-dynamic", interface="{}", coreml_partitioner=lambda: None)
    path = tmp_path / "model.pte"
    path.write_bytes(lowered.data)
    with torch.no_grad(), open_session(path, 1) as session:
        (expected,) = program.module()(image)
        np.testing.assert_allclose(session.run([image.numpy()])[0], expected.numpy(), atol=1e-5)
