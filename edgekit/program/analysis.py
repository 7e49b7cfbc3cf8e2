"""What quantization did to each layer, and how its weights are distributed: figures for the report."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from edgekit.program.graph import module_path, module_type, tensor_of
from edgekit.program.weights import weight_argument
from edgekit.records import SQNR_CEILING_DB, LayerError, WeightHistogram

HISTOGRAM_BINS = 64
HISTOGRAM_LAYERS = 24
LAYER_ERROR_SAMPLES = 8


def layer_errors(
    float_graph: GraphModule,
    quantized: GraphModule,
    batches: Iterable[Sequence[Tensor]],
    *,
    without: Collection[str] = (),
) -> tuple[LayerError, ...]:
    """Compare each weighted layer's output in the quantized graph with the float one's, on the same inputs.

    The error is the accumulated one: what earlier layers passed on is in it. Layers are matched by their path, so the
    two graphs may have been made apart; a layer that runs several times (the steps of a recurrent one) is given its
    worst run. An operation that belongs to no layer is matched by its own name.

    Args:
        float_graph: The model before it was quantized.
        quantized: After.
        batches: Inputs that both graphs take.
        without: Types of layers whose numbers are no weights (a pooling that is computed as a convolution).
    """
    kept = [tuple(inputs) for inputs in batches]
    expected, received = (_values(graph, kept, without) for graph in (float_graph, quantized))
    worst: dict[str, LayerError] = {}
    for key, (node, value) in expected.items():
        if key not in received or value.shape != received[key][1].shape:
            continue
        name, other = module_path(node) or node.name, received[key][1]
        error = LayerError(
            layer=name,
            type=module_type(node) or str(node.target),
            sqnr_db=sqnr_db(value, other),
            max_abs_error=float((value - other).abs().max()),
        )
        if name not in worst or error.sqnr_db < worst[name].sqnr_db:
            worst[name] = error
    return tuple(worst.values())


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


def weight_histograms(float_graph: GraphModule, *, without: Collection[str] = ()) -> tuple[WeightHistogram, ...]:
    """Return histograms of the biggest layers' weights, in graph order.

    Args:
        float_graph: The model before it was quantized.
        without: As in :func:`layer_errors`.
    """
    weights = list(_layer_weights(float_graph, without).items())
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


def _layers(graph: GraphModule, without: Collection[str]) -> dict[str, Node]:
    """Return the weighted operations by a key that two graphs of one model share: layer path, and which run of it."""
    found: dict[str, Node] = {}
    runs: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or weight_argument(node) is None or module_type(node) in without:
            continue
        path = module_path(node)
        runs[path] = runs.get(path, 0) + 1
        found[f"{path}#{runs[path]}" if path else node.name] = node
    return found


def _layer_weights(graph: GraphModule, without: Collection[str]) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for node in _layers(graph, without).values():
        index = weight_argument(node)
        weight = None if index is None else tensor_of(graph, node.args[index])
        if weight is not None and weight.numel():
            found.setdefault(module_path(node) or node.name, weight)
    return found


def _values(
    graph: GraphModule, batches: Sequence[Sequence[Tensor]], without: Collection[str]
) -> dict[str, tuple[Node, Tensor]]:
    """Return what each layer computes, all batches one after the other."""
    layers = _layers(graph, without)
    recorder = _Recorder(graph, layers.values())
    with torch.no_grad():
        for inputs in batches:
            recorder.run(*inputs)
    return {
        key: (node, torch.cat([value.flatten() for value in recorder.seen[node]]))
        for key, node in layers.items()
        if node in recorder.seen
    }


class _Recorder(Interpreter):
    """Runs a graph and keeps what the wanted operations return."""

    def __init__(self, graph: GraphModule, wanted: Iterable[Node]) -> None:
        super().__init__(graph)
        self._wanted = frozenset(wanted)
        self.seen: dict[Node, list[Tensor]] = {}

    def run_node(self, node: Node) -> object:
        value: object = super().run_node(node)
        if node in self._wanted and isinstance(value, Tensor):
            self.seen.setdefault(node, []).append(value)
        return value
