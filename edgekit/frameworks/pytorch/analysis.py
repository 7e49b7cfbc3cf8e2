"""What quantization did to each layer, and how its weights are distributed: figures for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from edgekit.frameworks.pytorch.quantizer import weight_argument
from edgekit.frameworks.pytorch.samples import Samples
from edgekit.program.graph import module_path, module_type, tensor_of
from edgekit.records import SQNR_CEILING_DB, LayerError, WeightHistogram

HISTOGRAM_BINS = 64
HISTOGRAM_LAYERS = 24
LAYER_ERROR_SAMPLES = 8


def layer_errors(float_graph: GraphModule, quantized: GraphModule, samples: Samples) -> tuple[LayerError, ...]:
    """Compare each weighted layer's output in the quantized graph with the float one's, on the same inputs.

    The error is the accumulated one: what earlier layers passed on is in it.

    Args:
        float_graph: Recorded and rewritten as the quantized one was, so that operations have the same names.
        quantized: Converted.
        samples: A batch both graphs take.
    """
    wanted = {node.name: node for node in float_graph.graph.nodes if _is_layer(node)}
    expected, received = (_values(graph, samples, wanted) for graph in (float_graph, quantized))
    return tuple(
        LayerError(
            layer=module_path(node) or name,
            type=module_type(node) or str(node.target),
            sqnr_db=sqnr_db(expected[name], received[name]),
            max_abs_error=float((expected[name] - received[name]).abs().max()),
        )
        for name, node in wanted.items()
        if name in received and expected[name].shape == received[name].shape
    )


def sqnr_db(reference: Tensor, value: Tensor) -> float:
    """Return ``10 log10(sum(reference^2) / sum((value - reference)^2))``, at most 300 either way.

    Example:
        >>> round(sqnr_db(torch.tensor([1.0]), torch.tensor([1.1])))
        20
    """
    signal = float(reference.double().square().sum())
    noise = float((value.double() - reference.double()).square().sum())
    if noise == 0:
        return SQNR_CEILING_DB
    if signal == 0:
        return -SQNR_CEILING_DB
    return max(-SQNR_CEILING_DB, min(SQNR_CEILING_DB, 10 * math.log10(signal / noise)))


def weight_histograms(float_graph: GraphModule) -> tuple[WeightHistogram, ...]:
    """Return histograms of the biggest layers' weights, in graph order."""
    weights = list(_layer_weights(float_graph).items())
    biggest = sorted(weights, key=lambda item: -item[1].numel())[:HISTOGRAM_LAYERS]
    kept = {name for name, _ in biggest}
    histograms = []
    for name, weight in weights:
        if name in kept:
            counts, edges = np.histogram(weight.float().numpy(), bins=HISTOGRAM_BINS)
            histograms.append(
                WeightHistogram(layer=name, edges=tuple(map(float, edges)), counts=tuple(map(int, counts)))
            )
    return tuple(histograms)


def program_sparsity(program: ExportedProgram) -> float:
    """Return the share of zeros in a program's matrices and kernels, integers included."""
    weights = [tensor for tensor in program.state_dict.values() if tensor.dim() >= 2]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def _is_layer(node: Node) -> bool:
    return node.op == "call_function" and weight_argument(node) is not None


def _layer_weights(graph: GraphModule) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        index = weight_argument(node) if node.op == "call_function" else None
        weight = None if index is None else tensor_of(graph, node.args[index])
        if weight is not None and weight.numel():
            found.setdefault(module_path(node) or node.name, weight)
    return found


def _values(graph: GraphModule, samples: Samples, wanted: Mapping[str, Node]) -> dict[str, Tensor]:
    recorder = _Recorder(graph, wanted)
    with torch.no_grad():
        recorder.run(*samples.inputs)
    return recorder.seen


class _Recorder(Interpreter):
    """Runs a graph and keeps what the wanted operations return."""

    def __init__(self, graph: GraphModule, wanted: Mapping[str, Node]) -> None:
        super().__init__(graph)
        self._wanted = wanted
        self.seen: dict[str, Tensor] = {}

    def run_node(self, node: Node) -> object:
        value: object = super().run_node(node)
        if node.name in self._wanted and isinstance(value, Tensor):
            self.seen[node.name] = value
        return value
