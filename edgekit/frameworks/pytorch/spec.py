"""The PyTorch framework: what it reads, and where its functions are. Data only, nothing heavy is imported."""

from __future__ import annotations

from edgekit.contracts import FrameworkSpec, Refusal

SPEC = FrameworkSpec(
    name="pytorch",
    title="PyTorch",
    suffixes=(".pt2", ".onnx", ".pt", ".pth", ".safetensors"),
    distributions=("torch", "torchao", "executorch"),
    describe="edgekit.frameworks.pytorch.describe:describe",
    train="edgekit.frameworks.pytorch.train:train",
    to_program="edgekit.frameworks.pytorch.to_program:to_program",
    extra="pytorch",
    imports=("torch", "torchvision", "timm", "transformers"),
    launcher=("torch.distributed.run", "--standalone", "--nproc_per_node={devices}"),
    refusals={
        "quantize.unsupported": Refusal(
            reason="every layer goes through quantization-aware training; what has no integer kernel is known only "
            "after it, and named in the report",
            instead="skip: the layers that must stay float, and a budget on what is delegated",
        ),
    },
)
