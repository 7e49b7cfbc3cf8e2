"""ONNX files as sources, as PyTorch's two exporters write them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.frameworks.pytorch.onnx_source import load_onnx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Net(nn.Module):
    """A shared weight, a reduction, a reshape and both kinds of GELU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.gelu(self.norm(self.stem(image))).mean((2, 3))
        x = self.twice(nn.functional.gelu(self.twice(x), approximate="tanh"))
        return self.head(x.reshape(-1, 2, 2).flatten(1))


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "TorchScript"])
def test_file_computes_what_its_source_does(tmp_path: Path, dynamo: bool) -> None:
    module, image = Net().eval(), torch.randn(1, 1, 8, 8)
    path = tmp_path / "net.onnx"
    torch.onnx.export(module, (image,), str(path), dynamo=dynamo, opset_version=20, verbose=False)
    loaded, inputs = load_onnx(path)
    assert [tuple(tensor.shape) for tensor in inputs] == [(1, 1, 8, 8)]
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), module(image), atol=1e-5, rtol=1e-5)


def test_operation_without_a_counterpart_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gru.onnx"
    torch.onnx.export(nn.GRU(4, 4), (torch.randn(3, 1, 4),), str(path), dynamo=True, verbose=False)
    with pytest.raises(ModelError, match=r"operation that cannot be turned into PyTorch: .*GRU.*as \.pt2 instead"):
        load_onnx(path)
