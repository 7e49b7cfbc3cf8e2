"""What integer kernels compute, bit for bit: a converted graph run with integer arithmetic instead of floating point.

A quantized program describes an integer layer as dequantize → layer → quantize in floating point. XNNPACK, which runs
the int8 artifacts of both TFLite and ExecuTorch, computes integers: exact sums of products, then one rounding. Where a
result falls between two codes, the noise of floating point decides for the program, and the two part by one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgekit.program.graph import argument, tensor_of
from edgekit.program.quantization import is_dequantize, is_quantize
from edgekit.program.rewrites import CONVOLUTIONS, LINEAR

_ATEN = torch.ops.aten
_SUM = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_PRODUCT = (_ATEN.mul.Tensor, _ATEN.mul_.Tensor)
_RELU = (_ATEN.relu.default, _ATEN.relu_.default)
_RELU6 = (_ATEN.relu6.default, _ATEN.relu6_.default)
_HARDTANH = (_ATEN.hardtanh.default, _ATEN.hardtanh_.default)
_SUM_BITS = 20
"""XNNPACK holds the multipliers of a sum in 21 bits: the larger one lies in [2^20, 2^21)."""


@dataclass(frozen=True, slots=True)
class _Codes:
    """An int8 tensor with its scale (float32, as the kernels hold it) and zero point."""

    values: Tensor
    scale: Tensor
    zero_point: int


@dataclass(frozen=True, slots=True)
class _Target:
    """The codes that a quantize operation makes, within the bounds of the activation that is fused before it."""

    scale: Tensor
    zero_point: int
    low: int
    high: int
    dtype: torch.dtype


class IntegerReference(Interpreter):
    """Runs a converted graph as XNNPACK runs its integer layers.

    In integers: convolutions, linear layers, sums and products of two tensors, means over an image's positions, each
    with a ReLU, ReLU6 or hardtanh behind it. Requantization multiplies the exact sum with a float32 ratio of scales and
    rounds half to even; sums use 21-bit fixed-point multipliers and round half up (XNNPACK's ``qs8-vadd`` and
    ``requantization`` sources). Everything else runs in floating point, as in the program.

    Args:
        graph: Quantized to int8 with folded weights, biases on their grid (``edgekit.program.biases``).
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)  # integer layers read further back than their arguments
        self._graph = graph

    def run_node(self, n: Node) -> Any:
        """Run one operation; an integer layer is run at the quantize operation that ends it."""
        if is_quantize(n) and isinstance(n.args[1], float):
            codes = self._integer_layer(n)
            if codes is not None:
                return codes
        return super().run_node(n)

    def _integer_layer(self, quantize: Node) -> Tensor | None:
        """Return the codes of the layer before ``quantize``, None where it is not one of the integer layers."""
        layer, target = _fused_clamp(quantize)
        if layer.target in _SUM:
            return self._sum(layer, target)
        if layer.target in (*CONVOLUTIONS, *LINEAR):
            found = self._layer(layer)
        elif layer.target in _PRODUCT:
            found = self._product(layer)
        else:
            found = self._mean(layer)
        if found is None:
            return None
        accumulated, scale = found
        codes = torch.round(accumulated.float() * (scale / target.scale)) + target.zero_point
        return codes.clamp(target.low, target.high).to(target.dtype)

    def _codes(self, node: object) -> _Codes | None:
        if not isinstance(node, Node) or not is_dequantize(node):
            return None
        arguments: tuple[Any, ...] = node.args
        source, scale, zero_point = arguments[:3]
        if not isinstance(scale, float):
            return None  # chosen at run time
        return _Codes(self.env[source], torch.tensor(scale, dtype=torch.float32), int(zero_point))

    def _layer(self, layer: Node) -> tuple[Tensor, Tensor] | None:
        """Sum of products and bias of a convolution or linear layer, with the scale of each output channel."""
        source, weight = self._codes(layer.args[0]), layer.args[1]
        if source is None or not isinstance(weight, Node) or not is_dequantize(weight):
            return None
        integers, steps = weight.args[:2]
        weights = self.env[integers].double()  # type: ignore[index]  # sums below 2^53 are exact
        weight_scale = torch.tensor([steps]) if isinstance(steps, float) else tensor_of(self._graph, steps)
        if weight_scale is None:
            return None
        scale = weight_scale.float() * source.scale
        bias = argument(layer, 2)
        whole = None if bias is None else torch.round(self.env[bias] / scale).double().expand(len(weights))
        centred = source.values.double() - source.zero_point
        total = layer.target(centred, weights, whole, *layer.args[3:], **layer.kwargs)  # type: ignore[operator]
        trailing = 0 if layer.target in LINEAR else weights.dim() - 2
        return total, scale.reshape(-1, *[1] * trailing)

    def _product(self, layer: Node) -> tuple[Tensor, Tensor] | None:
        left, right = (self._codes(source) for source in layer.args[:2])
        if left is None or right is None:
            return None
        product = (left.values.int() - left.zero_point) * (right.values.int() - right.zero_point)
        return product, left.scale * right.scale

    def _mean(self, layer: Node) -> tuple[Tensor, Tensor] | None:
        """Sum over an image's positions; their number goes into the scale."""
        whole = layer.target is _ATEN.adaptive_avg_pool2d.default and list(argument(layer, 1)) == [1, 1]
        kept = layer.target is _ATEN.mean.dim and bool(argument(layer, 2, False))
        source = self._codes(layer.args[0]) if whole or kept else None
        if source is None:
            return None
        axes = (-2, -1) if whole else tuple(argument(layer, 1))
        sums = (source.values.double() - source.zero_point).sum(axes, keepdim=True)
        return sums, source.scale / float(source.values.numel() // sums.numel())

    def _sum(self, layer: Node, target: _Target) -> Tensor | None:
        left, right = (self._codes(source) for source in layer.args[:2])
        if left is None or right is None or layer.kwargs.get("alpha", 1) != 1:
            return None
        ratios = [float(term.scale / target.scale) for term in (left, right)]
        shift = _SUM_BITS - (math.frexp(max(ratios))[1] - 1)
        by_left, by_right = (round(math.ldexp(ratio, shift)) for ratio in ratios)
        total = (left.values.long() - left.zero_point) * by_left + (right.values.long() - right.zero_point) * by_right
        codes = ((total + (1 << (shift - 1))) >> shift) + target.zero_point
        return codes.clamp(target.low, target.high).to(target.dtype)


def _fused_clamp(quantize: Node) -> tuple[Node, _Target]:
    """Return the layer before ``quantize``, and its codes with the bounds of the activations in between."""
    arguments: tuple[Any, ...] = quantize.args
    node, step, zero_point, low, high, dtype = arguments
    scale = torch.tensor(step, dtype=torch.float32)
    while (bounds := _bounds(node)) is not None:
        floor, roof = (float(zero_point + torch.round(bound / scale)) for bound in bounds)
        low, high = max(low, floor), min(high, roof)
        node = node.args[0]
    return node, _Target(scale, int(zero_point), int(low), int(high), dtype)


def _bounds(node: Node) -> tuple[float, float] | None:
    """Return what an activation cuts its input off at, None for other operations."""
    if node.target in _RELU:
        return 0.0, math.inf
    if node.target in _RELU6:
        return 0.0, 6.0
    if node.target in _HARDTANH:
        return float(argument(node, 1, -1.0)), float(argument(node, 2, 1.0))
    return None
