"""The PyTorch framework: what it reads, and where its functions are. Data only, nothing heavy is imported."""

from __future__ import annotations

from edgekit.contracts import FrameworkSpec

SPEC = FrameworkSpec(
    name="pytorch",
    title="PyTorch",
    suffixes=(".pt2", ".onnx", ".pt", ".pth", ".safetensors"),
    distributions=("torch", "torchao", "executorch"),
    describe="edgekit.frameworks.pytorch.describe:describe",
    train="edgekit.frameworks.pytorch.train:train",
    to_program="edgekit.frameworks.pytorch.to_program:to_program",
    extra="pytorch",
)
