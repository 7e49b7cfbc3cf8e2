"""Activations whose integer kernels in TFLite compute something else than their definition, kept in floating point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node

from edgekit.program.graph import add_tensor, argument, call, calls, replace, tidy
from edgekit.program.quantization import is_dequantize, is_quantize

_ATEN = torch.ops.aten


def keep_float(graph: GraphModule) -> GraphModule:
    """Write out activations between dequantize and quantize whose integer kernels are inexact.

    Measured over all 256 codes: LEAKY_RELU works with a fixed-point slope and is off by one step in 7 % of codes,
    HARD_SWISH by one step in 0.3 %, outside XNNPACK, which splits the delegate. The converter fuses a lone activation
    between dequantize and quantize into these kernels. Written out, it stays in floating point, inside XNNPACK, and
    gives what the program says.

    Args:
        graph: A quantized graph; it is changed and returned.
    """
    for node in calls(graph, *_WRITTEN_OUT):
        if is_dequantize(node.args[0]) and node.users and all(is_quantize(reader) for reader in node.users):
            replace(node, _WRITTEN_OUT[node.target](graph, node))
    return tidy(graph)


def _hardswish(graph: GraphModule, node: Node) -> Node:
    """``x * relu6(x + 3) * (1 / 6)``."""
    shifted = call(graph, node, _ATEN.add.Tensor, node.args[0], _constant(graph, node, 3.0))
    clipped = call(graph, node, _ATEN.hardtanh.default, shifted, 0.0, 6.0)
    product = call(graph, node, _ATEN.mul.Tensor, clipped, _again(graph, node))
    return call(graph, node, _ATEN.mul.Tensor, product, _constant(graph, node, 1 / 6))


def _leaky_relu(graph: GraphModule, node: Node) -> Node:
    """``relu(x) - slope * relu(-x)``."""
    negated = call(graph, node, _ATEN.neg.default, _again(graph, node))
    below = call(graph, node, _ATEN.relu.default, negated)
    scaled = call(graph, node, _ATEN.mul.Tensor, below, _constant(graph, node, float(argument(node, 1, 0.01))))
    above = call(graph, node, _ATEN.relu.default, node.args[0])
    return call(graph, node, _ATEN.sub.Tensor, above, scaled)


_WRITTEN_OUT: dict[object, Callable[[GraphModule, Node], Node]] = {
    _ATEN.hardswish.default: _hardswish,
    _ATEN.hardswish_.default: _hardswish,
    _ATEN.leaky_relu.default: _leaky_relu,
    _ATEN.leaky_relu_.default: _leaky_relu,
}


def _constant(graph: GraphModule, node: Node, value: float) -> Node:
    """A number of ``node``'s rank: the converter's layout pass transposes around a constant of another rank."""
    shape = (1,) * node.meta["val"].dim()
    return add_tensor(graph, torch.full(shape, value), f"{node.name}_number", node)


def _again(graph: GraphModule, node: Node) -> Node:
    """A second dequantize of an activation's input: the layout pass breaks a graph in which one has two readers."""
    dequantize: Node = node.args[0]  # type: ignore[assignment]
    return call(graph, node, dequantize.target, *dequantize.args)  # type: ignore[arg-type]
