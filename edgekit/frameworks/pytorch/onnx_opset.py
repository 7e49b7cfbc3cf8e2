"""Rewrite ONNX graphs into what onnx2torch reads: it knows the operations of opset 17 and before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

KNOWN_OPSET = 17
INT64 = 7
"""``onnx.TensorProto.INT64``."""


def with_known_operations(model: Any) -> Any:
    """Write a model in opset 17.

    Newer exporters write opset 18 and later, mostly with the same operations under a new version number, which onnx's
    own converter lowers. Two things it does not: GELU became one operation in opset 20, and copies of weights
    (``Identity`` of an initializer) confuse onnx2torch.

    Args:
        model: ``onnx.ModelProto``; it is changed.

    Returns:
        The model, in opset 17 or the older one that it had.

    Raises:
        RuntimeError: An operation has no counterpart in opset 17 (onnx's converter names it).
    """
    import onnx

    _share_copied_weights(model.graph)
    _drop_allowzero(model.graph)
    version = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if version <= KNOWN_OPSET:
        return model
    _expand_gelu(model.graph)
    return onnx.version_converter.convert_version(model, KNOWN_OPSET)


def _share_copied_weights(graph: Any) -> None:
    """Let readers of ``Identity(weight)`` read the weight."""
    weights = {tensor.name for tensor in graph.initializer}
    copies = {}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            copies[node.output[0]] = node.input[0]
    outputs = {value.name for value in graph.output}
    kept = [node for node in graph.node if not (node.output and node.output[0] in copies.keys() - outputs)]
    for node in kept:
        for place, name in enumerate(node.input):
            if name in copies:
                node.input[place] = copies[name]
    del graph.node[:]
    graph.node.extend(kept)


def _drop_allowzero(graph: Any) -> None:
    """Drop the flag that tells what a size of 0 means from reshapes to constant shapes that have none."""
    import onnx

    shapes = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == INT64
    }
    for node in graph.node:
        if node.op_type == "Reshape" and 0 not in shapes.get(node.input[1], np.zeros(1)):
            kept = [entry for entry in node.attribute if entry.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _expand_gelu(graph: Any) -> None:
    """Write GELU as its definition: Hendrycks & Gimpel 2016, eq. 2, or their tanh approximation."""
    expanded: list[Any] = []
    for node in graph.node:
        expanded.extend(_gelu(graph, node) if node.op_type == "Gelu" else [node])
    del graph.node[:]
    graph.node.extend(expanded)


def _gelu(graph: Any, node: Any) -> Iterator[Any]:
    import onnx

    x, y = node.input[0], node.output[0]

    def constant(word: str, value: float) -> str:
        name = f"{y}/{word}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def call(kind: str, word: str, *inputs: str) -> Any:
        return onnx.helper.make_node(kind, list(inputs), [f"{y}/{word}"])

    approximate = any(entry.name == "approximate" and entry.s == b"tanh" for entry in node.attribute)
    if approximate:
        yield call("Mul", "square", x, x)
        yield call("Mul", "cube", f"{y}/square", x)
        yield call("Mul", "scaled", f"{y}/cube", constant("c", 0.044715))
        yield call("Add", "sum", x, f"{y}/scaled")
        yield call("Mul", "inner", f"{y}/sum", constant("root", math.sqrt(2 / math.pi)))
        yield call("Tanh", "bent", f"{y}/inner")
    else:
        yield call("Mul", "inner", x, constant("root", 1 / math.sqrt(2)))
        yield call("Erf", "bent", f"{y}/inner")
    yield call("Add", "gate", f"{y}/bent", constant("one", 1.0))
    yield call("Mul", "half", x, constant("half_value", 0.5))
    yield onnx.helper.make_node("Mul", [f"{y}/half", f"{y}/gate"], [y])
