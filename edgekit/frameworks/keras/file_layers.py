"""The layers of the source in a converted file: which operators they became, and which of them compute in floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.fx import GraphModule

from edgekit.frameworks.keras.layer_paths import LayerPaths
from edgekit.frameworks.keras.layers import source_layers
from edgekit.frameworks.keras.load import Source
from edgekit.program.tflite import flatbuffer
from edgekit.program.tflite.graph import GraphInfo, OperatorInfo, decode
from edgekit.program.tflite.names import layer_names
from edgekit.records import Precision, SkippedLayer

_WEIGHTS_AT = {
    "CONV_2D": (1,), "DEPTHWISE_CONV_2D": (1,), "TRANSPOSE_CONV": (1,), "CONV_3D": (1,), "FULLY_CONNECTED": (1,),
    "EMBEDDING_LOOKUP": (1,), "GATHER": (0,), "BATCH_MATMUL": (0, 1),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 9)), "BIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 9)),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
}  # fmt: skip
"""Operator -> the inputs where its weights lie."""

_MOVES = frozenset({"QUANTIZE", "DEQUANTIZE"})
_MINIMUM_WEIGHTS = 1024
"""Weights of fewer values stay as they are when TensorFlow quantizes weights alone (minimum_elements_for_weights)."""

_REASONS: dict[Precision, str] = {
    "int8": "TFLite has no integer kernel for it, or it has no scales",
    "int16x8": "TFLite has no kernel for it with activations of 16 bits",
    "int8-dynamic": "no kernel takes it with scales chosen at run time",
    "w8": "no tool stores its weights with 8 bits",
    "w4": "no tool stores its weights with 4 or 8 bits",
}


@dataclass(frozen=True, slots=True)
class _Weighted:
    """An operator with constant weights."""

    layer: str
    kind: str
    weights: int
    quantized: bool
    node: str


def float_layers(
    content: bytes, source: Source, precision: Precision, picked: Mapping[str, str]
) -> tuple[SkippedLayer, ...]:
    """Name the layers with weights that a quantized file holds as real numbers, and why.

    Args:
        content: The file.
        source: Whose layers they are.
        precision: Of the file.
        picked: Layer -> the user's rule that left it alone.
    """
    found: dict[str, SkippedLayer] = {}
    for item in _weighted(content, source):
        if item.quantized:
            continue
        rule = _rule_of(item.layer, picked)
        small = precision == "int8-dynamic" and item.weights < _MINIMUM_WEIGHTS
        why = f"it has {item.weights} weights, fewer than {_MINIMUM_WEIGHTS}" if small else _REASONS[precision]
        reason = f"left alone by the rule {rule!r}" if rule else why
        found.setdefault(item.layer, SkippedLayer(name=item.layer, type=item.kind, reason=reason))
    return tuple(found.values())


def operators_inside(content: bytes, source: Source, picked: Mapping[str, str]) -> list[str]:
    """Return the operators that lie in picked layers, by the name of their first output: what quantizers go by."""
    if not picked:
        return []
    return [
        graph.tensors[operator.outputs[0]].name
        for graph, operator, layer in _operators(_decoded(content), source)
        if operator.outputs and _rule_of(layer, picked)
    ]


def float_islands(content: bytes, source: Source, picked: Mapping[str, str]) -> tuple[str, ...]:
    """Name the operators of an integer file that return real numbers, each type with the layer of its first.

    Operators of picked layers are left out: those were meant to.
    """
    found: dict[str, str] = {}
    for graph, operator, layer in _operators(_decoded(content), source):
        outputs = [graph.tensors[index] for index in operator.outputs if index >= 0]
        real = any(info.quantization is None and info.dtype.is_floating_point for info in outputs)
        if real and operator.type not in _MOVES and _rule_of(layer, picked) is None:
            found.setdefault(operator.type, layer)
    return tuple(f"{kind} (in {place!r})" for kind, place in found.items())


def layers_by_label(content: bytes, source: Source) -> dict[str, str]:
    """Return what the reader calls the operators of a file -> the source's layer, where a name means one layer only."""
    graphs, known = _decoded(content), {layer.name for layer in source_layers(source)}
    labels = [label for names in layer_names(graphs) for label in names]
    found: dict[str, set[str]] = {}
    for label, (_, _, layer) in zip(labels, _operators(graphs, source), strict=True):
        if layer in known:
            found.setdefault(label, set()).add(layer)
    return {label: layers.pop() for label, layers in found.items() if label and len(layers) == 1}


def rename_layers(graph: GraphModule, layers: Mapping[str, str]) -> None:
    """Give the operations of a graph the names of the layers that they belong to.

    Args:
        graph: Read from a file.
        layers: From :func:`layers_by_label`.
    """
    for node in graph.graph.nodes:
        stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
        if stack:
            named = {layers.get(path, path): kind for path, kind in stack.values()}
            node.meta["nn_module_stack"] = {path: (path, kind) for path, kind in named.items()}


def _rule_of(layer: str, picked: Mapping[str, str]) -> str | None:
    """Return the rule that picked a layer or one that it lies in."""
    path = layer
    while path:
        if path in picked:
            return picked[path]
        path = path.rpartition(".")[0]
    return None


def _weighted(content: bytes, source: Source) -> Iterator[_Weighted]:
    for graph, operator, layer in _operators(_decoded(content), source):
        makers = {index: maker for maker in graph.operators for index in maker.outputs}
        for place in _WEIGHTS_AT.get(operator.type, ()):
            index = operator.inputs[place] if place < len(operator.inputs) else -1
            if index in makers and makers[index].type == "DEQUANTIZE":
                index = makers[index].inputs[0]  # weights that are unpacked before they are used
            info = graph.tensors[index] if index >= 0 else None
            if info is None or info.constant is None or len(info.shape) < 2:
                continue
            quantized = info.quantization is not None
            size = int(np.prod(info.shape, dtype=np.int64))
            yield _Weighted(layer, operator.type, size, quantized, graph.tensors[operator.outputs[0]].name)


def _decoded(content: bytes) -> tuple[GraphInfo, ...]:
    return decode(flatbuffer.parse(content))


def _operators(graphs: Sequence[GraphInfo], source: Source) -> Iterator[tuple[GraphInfo, OperatorInfo, str]]:
    """Walk all operators with the source's layers that they belong to."""
    known = {layer.name for layer in source_layers(source)}
    paths = LayerPaths(known)
    for graph, names in zip(graphs, layer_names(graphs), strict=True):
        for operator, name in zip(graph.operators, names, strict=True):
            output = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
            if source.library == "tflite":
                yield graph, operator, output
                continue
            candidates = [name, *_constant_names(graph, operator)]
            if operator.type in _WEIGHTS_AT:
                # What is fused into a layer, and the model's output, rename its result, never its weights.
                candidates = [*candidates[1:], name]
            layers = [layer for layer in map(paths.find, candidates) if layer in known]
            yield graph, operator, layers[0] if layers else name or output


def _constant_names(graph: GraphInfo, operator: OperatorInfo) -> list[str]:
    """Return the scopes of an operator's weights, as dotted paths; those behind an unpacking operator included."""
    makers = {index: maker for maker in graph.operators if maker.type == "DEQUANTIZE" for index in maker.outputs}
    found = []
    for place in _WEIGHTS_AT.get(operator.type, ()):
        index = operator.inputs[place] if place < len(operator.inputs) else -1
        index = makers[index].inputs[0] if index in makers else index
        if index >= 0 and graph.tensors[index].constant is not None:
            scopes = graph.tensors[index].name.partition(";")[0].split("/")[:-1]
            found.append(".".join(part for part in scopes if part))
    return found
