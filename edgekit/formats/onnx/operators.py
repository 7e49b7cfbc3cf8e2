"""List the operators of an ONNX graph: multiply-accumulates, weights, dtypes.

Coverage: ONNX Runtime's CPU provider takes every operator of a model that it loads, so that each counts as delegated.
What tells integer from float computation is ``compute_dtype``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from edgekit.formats.onnx.model_file import dtype_name
from edgekit.records import Operator

LAYOUT_OPERATORS = frozenset(
    {
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice", "Split", "Gather", "GatherND",
        "Expand", "Tile", "Pad", "Identity", "Shape", "Constant", "ConstantOfShape", "DepthToSpace", "SpaceToDepth",
        "Cast", "ReorderInput", "ReorderOutput",
    }
)  # fmt: skip
"""Operators that move or select data and compute nothing."""

_INTEGER_WORDS = ("QLinear", "Integer", "QGemm", "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM")
_MATMULS = {
    "MatMul": (0, 1), "FusedMatMul": (0, 1), "Gemm": (0, 1), "FusedGemm": (0, 1), "MatMulInteger": (0, 1),
    "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1), "QLinearMatMul": (0, 3), "QGemm": (0, 3),
}  # fmt: skip
"""Matrix product -> positions of its two factors."""

_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "NhwcFusedConv": 1}
"""Convolution -> position of its weights."""


@dataclass(frozen=True, slots=True)
class _Graph:
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    constants: Mapping[str, onnx.TensorProto]
    unpacked: Mapping[str, str]
    """Output of a ``DequantizeLinear`` of a constant -> that constant: counted where it is used."""

    def constant(self, name: str) -> onnx.TensorProto | None:
        """Return the constant behind an input, looking through its unpacking."""
        return self.constants.get(self.unpacked.get(name, name))


def list_operators(model: onnx.ModelProto, source: onnx.ModelProto) -> tuple[Operator, ...]:
    """List the operators of a model in execution order. Free sizes count as 1.

    Args:
        model: As the runtime executes it.
        source: As it was written. The runtime's fused operations keep the names of the tensors that they return, but
            not always their shapes, which are taken from here.
    """
    graph = _read(model, source)
    seen: dict[str, int] = {}
    operators = []
    for index, node in enumerate(model.graph.node):
        name = node.name or (node.output[0] if node.output else f"node_{index}")
        seen[name] = seen.get(name, 0) + 1
        operators.append(
            Operator(
                index=index,
                name=name if seen[name] == 1 else f"{name}#{seen[name]}",
                type=node.op_type,
                delegated=True,
                compute_dtype=_compute_dtype(graph, node),
                macs=_macs(graph, node),
                weight_bytes=sum(_size(constant) for constant in _constants(graph, node)),
                weight_dtype=_weight_dtype(graph, node),
                kind=_kind(node),
            )
        )
    return tuple(operators)


def _read(model: onnx.ModelProto, source: onnx.ModelProto) -> _Graph:
    graph = model.graph
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    known = [_values(onnx.shape_inference.infer_shapes(part)) for part in (source, model)]
    for value in [*known[0], *known[1]]:
        tensor = value.type.tensor_type
        if tensor.elem_type:
            dtypes[value.name] = dtype_name(tensor.elem_type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(size.dim_value or 1 for size in tensor.shape.dim)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name, tensor in constants.items():
        shapes[name], dtypes[name] = tuple(tensor.dims), dtype_name(tensor.data_type)
    unpacked = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    return _Graph(shapes, dtypes, constants, unpacked)


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _size(tensor: onnx.TensorProto) -> int:
    bits = {"int4": 4, "uint4": 4, "bool": 8, "bfloat16": 16}
    name = dtype_name(tensor.data_type)
    width = bits.get(name) or int("".join(sign for sign in name if sign.isdigit()) or 8)
    return math.ceil(math.prod(int(size) for size in tensor.dims) * width / 8)


def _kind(node: onnx.NodeProto) -> Literal["compute", "quantize", "dequantize", "layout"]:
    if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return "quantize"
    if node.op_type == "DequantizeLinear":
        return "dequantize"
    return "layout" if node.op_type in LAYOUT_OPERATORS else "compute"


def _compute_dtype(graph: _Graph, node: onnx.NodeProto) -> str:
    if _kind(node) != "compute":
        return "none"
    if any(word in node.op_type for word in _INTEGER_WORDS):
        return "int8"
    known = [graph.dtypes[name] for name in (*node.output, *node.input) if name in graph.dtypes]
    floats = [dtype for dtype in known if "float" in dtype]
    return (floats or known or ["float32"])[0]


def _weight_dtype(graph: _Graph, node: onnx.NodeProto) -> str | None:
    position = _CONVOLUTIONS.get(node.op_type) or _MATMULS.get(node.op_type, (0, None))[1]
    if position is not None:
        weight = graph.constant(node.input[position]) if position < len(node.input) else None
        return None if weight is None else dtype_name(weight.data_type)
    constants = [] if _kind(node) == "layout" else _constants(graph, node)
    return dtype_name(max(constants, key=_size).data_type) if constants else None


def _constants(graph: _Graph, node: onnx.NodeProto) -> list[onnx.TensorProto]:
    if node.op_type == "DequantizeLinear" and node.output[0] in graph.unpacked:
        return []
    found = (graph.constant(name) for name in node.input)
    return [constant for constant in found if constant is not None]


def _macs(graph: _Graph, node: onnx.NodeProto) -> int:
    if node.op_type in _CONVOLUTIONS:
        weight = graph.shapes.get(node.input[_CONVOLUTIONS[node.op_type]], (0,))
        return _elements(graph, node.output[0]) * math.prod(weight[1:])
    if node.op_type in _MATMULS:
        factor = graph.constant(node.input[_MATMULS[node.op_type][1]])
        if node.output[0] not in graph.shapes and factor is not None:  # a fused product under a name of its own
            return math.prod(int(size) for size in factor.dims)
        return _elements(graph, node.output[0]) * _inner_size(graph, node)
    counted = _COUNTED.get(node.op_type)
    return counted(graph, node) if counted else 0


def _elements(graph: _Graph, name: str) -> int:
    shape = graph.shapes.get(name)
    return 0 if shape is None else math.prod(shape)


def _inner_size(graph: _Graph, node: onnx.NodeProto) -> int:
    left, right = (graph.shapes.get(node.input[position], ()) for position in _MATMULS[node.op_type])
    if len(left) >= 1 and not _flag(node, "transA"):
        return left[-1]
    if len(left) >= 2:
        return left[-2]
    return right[-1 if _flag(node, "transB") else 0] if right else 0


def _transposed_conv_macs(graph: _Graph, node: onnx.NodeProto) -> int:
    weight = graph.shapes.get(node.input[1], (0,))
    return _elements(graph, node.input[0]) * math.prod(weight[1:])


def _recurrent_macs(graph: _Graph, node: onnx.NodeProto) -> int:
    """Both matrices of every gate, once a time step and sample."""
    steps, batch = (*graph.shapes.get(node.input[0], (0, 0)), 0, 0)[:2]
    return steps * batch * (_elements(graph, node.input[1]) + _elements(graph, node.input[2]))


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


_COUNTED: dict[str, Callable[[_Graph, onnx.NodeProto], int]] = {
    "ConvTranspose": _transposed_conv_macs,
    "LSTM": _recurrent_macs,
    "GRU": _recurrent_macs,
    "RNN": _recurrent_macs,
}
