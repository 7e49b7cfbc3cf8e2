"""Lower a program to a ``.tflite`` flatbuffer with litert-torch, keeping names of inputs, outputs and layers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import litert_torch
import torch
import torch.fx.traceback
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torch.export import ExportedProgram

from edgekit.formats.tflite.float_kernels import keep_float
from edgekit.program.quantization import is_dequantize, is_quantize


def lower(
    program: ExportedProgram, *, input_names: Sequence[str], output_names: Sequence[str], quantized: bool
) -> bytes:
    """Lower a program.

    Args:
        program: A float program, or one with explicit quantize/dequantize operations whose weights are unfolded
            (litert-torch's passes expect float weights followed by a quantize/dequantize pair).
        input_names: Names of the inputs in the model's signature, in the program's order.
        output_names: The same of the outputs.
        quantized: Whether quantize/dequantize pairs are to become integer kernels.

    Returns:
        The flatbuffer.
    """
    model = _NamedModel(program, input_names, output_names)
    samples = dict(zip(input_names, _sample_inputs(program), strict=True))
    logging.getLogger("absl").setLevel(logging.WARNING)
    edge_model = litert_torch.convert(
        model, sample_kwargs=samples, quant_config=_integer_kernels() if quantized else None
    )
    content: bytes = edge_model.model_content()
    return content


def _integer_kernels() -> QuantConfig:
    """Ask for integer kernels. Which quantizer is named does not matter: the program carries the scales already."""
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    return QuantConfig(pt2e_quantizer=quantizer)


class _NamedModel(torch.nn.Module):
    """A program as litert-torch wants it: a module whose keyword arguments and dictionary of results carry the names.

    litert-torch exports the module again, which would forget the layers that operations come from. Interpreting the
    graph with its metadata preserved keeps them, and the converter names tensors by them.
    """

    def __init__(self, program: ExportedProgram, input_names: Sequence[str], output_names: Sequence[str]) -> None:
        super().__init__()
        self.graph_module = keep_float(program.module(check_guards=False))
        _label_layers(self.graph_module)
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self.training = False  # eval() is refused by exported modules; litert-torch asks only for the flag

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the program's graph; results by name."""
        arguments = [inputs[name] for name in self.input_names]
        with torch.fx.traceback.preserve_node_meta():
            results = torch.fx.Interpreter(self.graph_module).run(*arguments, enable_io_processing=False)
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]
        return dict(zip(self.output_names, leaves, strict=True))


def _label_layers(module: Any) -> None:
    """Let each node's module stack be one entry: its layer's path, or its own name outside of any layer.

    Quantize and dequantize operations take the label of the operation that they belong to, so that an integer kernel
    carries its layer's name only.
    """
    labels: dict[torch.fx.Node, str] = {}
    for node in module.graph.nodes:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        labels[node] = (stack[-1][0] if stack else "") or node.name
    for node in module.graph.nodes:
        if is_quantize(node) and isinstance(node.args[0], torch.fx.Node):
            labels[node] = labels[node.args[0]]
    for node in reversed(module.graph.nodes):
        if is_dequantize(node) and node.users:
            labels[node] = labels[next(iter(node.users))]
    for node in module.graph.nodes:
        node.meta = {"val": node.meta.get("val"), "nn_module_stack": {"_": ("", labels[node])}}


def _sample_inputs(program: ExportedProgram) -> list[torch.Tensor]:
    """Make one input of each shape; a free size becomes 1."""
    names = set(program.graph_signature.user_inputs)
    samples = []
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name in names:
            fake = node.meta["val"]
            shape = [int(size) if isinstance(size, int) else 1 for size in fake.shape]
            samples.append(torch.zeros(shape, dtype=fake.dtype))
    return samples
