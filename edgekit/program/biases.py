"""Biases of integer layers, on the grid on which integer kernels hold them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgekit.program.graph import add_tensor, argument, calls, tensor_of, tidy
from edgekit.program.quantization import is_dequantize
from edgekit.program.rewrites import CONVOLUTIONS, LINEAR, TRANSPOSED

_LARGEST_EXACT = 2**24
"""Integers beyond are not all exact in float32."""


def snap_biases(graph: GraphModule) -> GraphModule:
    """Move every bias of an integer layer onto the int32 grid with the step ``input scale * weight scale``.

    A quantized program keeps biases in float32, and each exporter rounds them by itself: ExecuTorch with a float32
    step, the LiteRT converter with a float64 one. About one output in 2e5 comes out one step apart, which a deep net
    amplifies until most outputs differ (ResNet-18 agreed on 30 % of its outputs). A bias that lies on the grid already
    is rounded by nobody, and the program itself computes what the kernels will.

    Args:
        graph: A converted graph with folded weights; it is changed and returned.
    """
    for layer in calls(graph, *CONVOLUTIONS, *TRANSPOSED, *LINEAR):
        bias = tensor_of(graph, argument(layer, 2))
        step = _bias_step(graph, layer)
        if bias is None or step is None:
            continue
        whole = torch.round(bias.double() / step.double())
        if whole.abs().max() >= _LARGEST_EXACT:
            continue
        name = str(layer.args[2].target)  # type: ignore[union-attr]
        snapped = add_tensor(graph, (whole * step.double()).float(), f"{name}_snapped", layer)
        layer.args = (*layer.args[:2], snapped, *layer.args[3:])
    return tidy(graph)


def _bias_step(graph: GraphModule, layer: Node) -> Tensor | None:
    """Return the steps ``[C_out]`` (or one), in float32 as the kernels multiply them; None for a float layer."""
    source, weight = layer.args[:2]
    if not (is_dequantize(source) and is_dequantize(weight)):
        return None
    scale = source.args[1]  # type: ignore[union-attr]
    if not isinstance(scale, float):
        return None  # chosen at run time: kernels then add the bias in floating point
    steps = weight.args[1]  # type: ignore[union-attr]
    weight_steps = torch.tensor([steps]) if isinstance(steps, float) else tensor_of(graph, steps)
    grouped = layer.target in TRANSPOSED and argument(layer, 6, 1) != 1
    return None if weight_steps is None or grouped else weight_steps.float() * torch.tensor(scale, dtype=torch.float32)
