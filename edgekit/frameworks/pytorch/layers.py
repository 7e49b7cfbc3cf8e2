"""Layers as a recorded graph knows them: which there are, which ended quantized, and why the others did not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import GraphModule, Node

from edgekit.program.graph import module_path, module_stack, module_type
from edgekit.program.quantization import is_dequantize
from edgekit.program.rewrites import CONVOLUTIONS
from edgekit.program.weights import EMBEDDING, weight_argument
from edgekit.recipe.schema import QuantizeRule
from edgekit.records import SkippedLayer

_ATEN = torch.ops.aten
RECURRENT = (
    _ATEN.lstm.input,
    _ATEN.gru.input,
    _ATEN.rnn_tanh.input,
    _ATEN.rnn_relu.input,
    _ATEN.lstm_cell.default,
    _ATEN.gru_cell.default,
)
NORMS = (_ATEN.layer_norm.default, _ATEN.group_norm.default, _ATEN.batch_norm.default, _ATEN.instance_norm.default)


def layers_above(node: Node) -> frozenset[str]:
    """Return the paths of all modules that a node lies in."""
    return frozenset(path for path, _ in module_stack(node) if path)


def skipped_layers(graph: GraphModule, rule: QuantizeRule, picked: Mapping[str, str]) -> tuple[SkippedLayer, ...]:
    """Name the layers with weights that are in floating point, and why.

    Args:
        graph: Converted.
        rule: What was asked for.
        picked: Layer -> the user's rule that left it alone.
    """
    found: dict[str, SkippedLayer] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or not _has_weights(node):
            continue
        index = weight_argument(node)
        if index is not None and is_dequantize(node.args[index]):
            continue
        name = module_path(node) or node.name
        reason = _user_reason(node, picked) or _reason(node, rule)
        found.setdefault(name, SkippedLayer(name=name, type=module_type(node) or str(node.target), reason=reason))
    return tuple(found.values())


def _has_weights(node: Node) -> bool:
    return weight_argument(node) is not None or node.target in (*RECURRENT, *NORMS)


def _user_reason(node: Node, picked: Mapping[str, str]) -> str | None:
    rules = [picked[path] for path, _ in reversed(module_stack(node)) if path in picked]
    return f"left alone by the rule {rules[0]!r}" if rules else None


def _reason(node: Node, rule: QuantizeRule) -> str:
    if node.target in RECURRENT:
        return "recurrent: its state would carry the rounding error of every step"
    if node.target in NORMS:
        return "normalization: its few weights need the precision"
    if node.target in EMBEDDING:
        return f"embedding: {rule.precision} needs real-valued inputs; w8 and w4 quantize the table"
    if rule.precision == "int8-dynamic" and node.target in CONVOLUTIONS:
        return "kernels with scales chosen at run time exist for linear layers and dense 2-d convolutions only"
    index = weight_argument(node)
    if index is not None and not (isinstance(node.args[index], Node) and node.args[index].op == "get_attr"):  # type: ignore[union-attr]
        return "its weights are computed, not constant"
    return "its inputs are not floating point, or the XNNPACK quantizer has no pattern for it"
