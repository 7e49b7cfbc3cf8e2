"""List the operators of a ``.tflite`` model: multiply-accumulates, weights, dtypes, and what XNNPACK takes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.program.tflite import flatbuffer
from edgekit.records import Operator

LAYOUT_OPERATORS = frozenset(
    {
        "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "MIRROR_PAD", "CONCATENATION", "SLICE",
        "STRIDED_SLICE", "SPLIT", "SPLIT_V", "PACK", "UNPACK", "GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "TILE",
        "BROADCAST_TO", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "REVERSE_V2",
        "SHAPE", "READ_VARIABLE", "ASSIGN_VARIABLE", "VAR_HANDLE", "DYNAMIC_UPDATE_SLICE", "FILL", "SCATTER_ND",
    }
)  # fmt: skip
"""Operators that move or select data and compute nothing."""

_WEIGHT_INPUT = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "CONV_3D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1,
    "BATCH_MATMUL": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0, "UNIDIRECTIONAL_SEQUENCE_LSTM": 1,
}  # fmt: skip
"""Operator -> position of the input that holds its weights."""

_XNNPACK_LACKS = frozenset(
    {
        "EMBEDDING_LOOKUP", "GATHER", "GATHER_ND", "UNIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "SELECT_V2", "SELECT",
        "WHERE", "TOPK_V2", "ARG_MAX", "ARG_MIN", "ONE_HOT", "CUMSUM", "WHILE", "IF", "EQUAL", "NOT_EQUAL", "LESS",
        "GREATER", "LESS_EQUAL", "GREATER_EQUAL", "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SHAPE", "TILE",
        "FILL", "RANGE", "PACK", "UNPACK", "REDUCE_PROD", "FLOOR_DIV", "FLOOR_MOD", "SCATTER_ND", "CONV_3D",
        "BROADCAST_ARGS", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "RESIZE_NEAREST_NEIGHBOR",
    }
)  # fmt: skip
"""Operators for which LiteRT's XNNPACK delegate has no kernel on any dtype (tflite/delegates/xnnpack/README.md)."""

SIGNATURE_PREFIX = "serving_default_"
"""What the converter puts before the names of a signature's tensors."""

_DELEGATE_DTYPES = frozenset({"float32", "float16", "int8", "uint8"})


@dataclass(frozen=True, slots=True)
class _Node:
    """One operator with its tensors at hand."""

    model: Any
    graph: Any
    position: int
    type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    def input(self, position: int) -> Any | None:
        """Return the tensor at an input, None where it is left out."""
        index = self.inputs[position] if position < len(self.inputs) else -1
        return None if index < 0 else self.graph.tensors[index]

    @property
    def output(self) -> Any:
        """The first output tensor."""
        return self.graph.tensors[self.outputs[0]]


def list_operators(
    model: Any, *, delegated: Collection[int] | None, not_prepared: str | None = None
) -> tuple[Operator, ...]:
    """List the operators of the model's main graph in execution order.

    Args:
        model: As :func:`edgekit.program.tflite.flatbuffer.read_model` gives it.
        delegated: Positions of the operators that the delegate took; None when the runtime could not prepare the model.
        not_prepared: Why it could not.

    Returns:
        One record an operator. Weights that a ``DEQUANTIZE`` unpacks are counted at the operator that uses them.
    """
    graph = model.subgraphs[0]
    nodes = [_node(model, graph, position) for position in range(len(graph.operators or []))]
    unpacked = _unpacked_constants(nodes)
    names = _unique_names(nodes)
    taken = set(delegated or ())
    return tuple(
        Operator(
            index=node.position,
            name=names[node.position],
            type=node.type,
            delegated=node.position in taken,
            reason=None if node.position in taken else (not_prepared or _reason(node, unpacked)),
            compute_dtype=_compute_dtype(node),
            macs=_MACS.get(node.type, _no_macs)(node),
            weight_bytes=0 if _unpacks_constant(node) else _weight_bytes(node, unpacked),
            weight_dtype=None if _unpacks_constant(node) else _weight_dtype(node, unpacked),
            kind=_kind(node),
        )
        for node in nodes
    )


def _node(model: Any, graph: Any, position: int) -> _Node:
    operator = graph.operators[position]
    return _Node(
        model=model,
        graph=graph,
        position=position,
        type=flatbuffer.operator_name(model, operator),
        inputs=tuple(flatbuffer.indices(operator.inputs)),
        outputs=tuple(flatbuffer.indices(operator.outputs)),
        options=operator.builtinOptions,
    )


def _unpacks_constant(node: _Node) -> bool:
    source = node.input(0)
    return node.type == "DEQUANTIZE" and source is not None and flatbuffer.constant_of(node.model, source) is not None


def _unpacked_constants(nodes: list[_Node]) -> dict[int, int]:
    """Map the output tensor of each ``DEQUANTIZE`` of a constant to the constant."""
    return {node.outputs[0]: node.inputs[0] for node in nodes if _unpacks_constant(node)}


def _constants(node: _Node, unpacked: Mapping[int, int]) -> dict[int, tuple[str, int]]:
    """Return the constants that a node reads: input position -> dtype and bytes."""
    found = {}
    for position, index in enumerate(node.inputs):
        if index < 0:
            continue
        tensor = node.graph.tensors[unpacked.get(index, index)]
        data = flatbuffer.constant_of(node.model, tensor)
        if data is not None:
            found[position] = (flatbuffer.dtype_of(tensor), len(data))
    return found


def _weight_bytes(node: _Node, unpacked: Mapping[int, int]) -> int:
    return sum(size for _, size in _constants(node, unpacked).values())


def _weight_dtype(node: _Node, unpacked: Mapping[int, int]) -> str | None:
    constants = _constants(node, unpacked)
    position = _WEIGHT_INPUT.get(node.type)
    if position is not None:
        return constants[position][0] if position in constants else None
    if _kind(node) == "layout" or not constants:
        return None  # shapes, paddings and axes are no weights
    return max(constants.values(), key=lambda constant: constant[1])[0]


def _kind(node: _Node) -> Literal["compute", "quantize", "dequantize", "layout"]:
    if node.type == "QUANTIZE":
        return "quantize"
    if node.type == "DEQUANTIZE":
        return "dequantize"
    return "layout" if node.type in LAYOUT_OPERATORS else "compute"


def _compute_dtype(node: _Node) -> str:
    """Return what a node computes in. Float tensors with integer weights mean dynamic quantization: integer kernels."""
    if _kind(node) != "compute" or not node.outputs:
        return "none"
    result = flatbuffer.dtype_of(node.output)
    weight = node.input(_WEIGHT_INPUT[node.type]) if node.type in _WEIGHT_INPUT else None
    if result == "float32" and weight is not None and flatbuffer.dtype_of(weight) in ("int8", "int4"):
        return "int8"
    first = node.input(0)
    return flatbuffer.dtype_of(first) if result == "bool" and first is not None else result


def _reason(node: _Node, unpacked: Mapping[int, int]) -> str:
    """Say why the delegate left a node, from what its kernels cover."""
    tensors = [node.graph.tensors[index] for index in (*node.inputs[:1], *node.outputs) if index >= 0]
    dtypes = {flatbuffer.dtype_of(tensor) for tensor in tensors}
    foreign = sorted(dtypes - _DELEGATE_DTYPES)
    if foreign:
        return f"XNNPACK has no {'/'.join(foreign)} kernels"
    if node.type in _XNNPACK_LACKS:
        return f"XNNPACK has no {node.type} operator"
    if node.type == "DEQUANTIZE" and node.inputs[0] in unpacked.values():
        return "XNNPACK does not unpack these constant weights"
    if _compute_dtype(node) == "int8" and "float32" in dtypes:
        return f"XNNPACK has no dynamically quantized {node.type} for these weights"
    if dtypes & {"int8", "uint8"}:
        return f"XNNPACK has no {node.type} for these quantized tensors"
    return f"XNNPACK does not take this {node.type} (its shapes, axes or options)"


def _elements(tensor: Any | None) -> int:
    return 0 if tensor is None else math.prod(flatbuffer.shape_of(tensor))


def _no_macs(_node: _Node) -> int:
    return 0


def _conv_macs(node: _Node) -> int:
    """Each output element sums ``kernel height x width x input channels of its group`` products; weights OHWI."""
    weight = node.input(1)
    return 0 if weight is None else _elements(node.output) * math.prod(flatbuffer.shape_of(weight)[1:])


def _depthwise_macs(node: _Node) -> int:
    weight = node.input(1)
    return 0 if weight is None else _elements(node.output) * math.prod(flatbuffer.shape_of(weight)[1:3])


def _transposed_conv_macs(node: _Node) -> int:
    """Each input element spreads over ``output channels x kernel height x width`` products; weights OHWI."""
    weight = node.input(1)
    return 0 if weight is None else _elements(node.input(2)) * math.prod(flatbuffer.shape_of(weight)[:3])


def _dense_macs(node: _Node) -> int:
    weight = node.input(1)
    return 0 if weight is None else _elements(node.output) * flatbuffer.shape_of(weight)[-1]


def _matmul_macs(node: _Node) -> int:
    left = node.input(0)
    if left is None:
        return 0
    shape = flatbuffer.shape_of(left)
    return _elements(node.output) * shape[-2 if getattr(node.options, "adjX", False) else -1]


def _lstm_macs(node: _Node) -> int:
    """Every gate's input (1 to 4) and recurrent (5 to 8) matrix once a time step and sample."""
    source = node.input(0)
    if source is None:
        return 0
    steps = math.prod(flatbuffer.shape_of(source)[:2])
    return steps * sum(_elements(node.input(position)) for position in range(1, 9))


_MACS: dict[str, Callable[[_Node], int]] = {
    "CONV_2D": _conv_macs,
    "CONV_3D": _conv_macs,
    "DEPTHWISE_CONV_2D": _depthwise_macs,
    "TRANSPOSE_CONV": _transposed_conv_macs,
    "FULLY_CONNECTED": _dense_macs,
    "BATCH_MATMUL": _matmul_macs,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm_macs,
}


def _unique_names(nodes: list[_Node]) -> dict[int, str]:
    """Name each node by the source layer: the layer itself for the node that holds its weights.

    The converter joins the layers that it fused with ``;`` and numbers tensors of the same name:
    ``relu;;block.bn;;block.conv;2`` is the convolution of ``block.conv``. Its helpers (padding, transposes) are named
    ``block.conv/pad``; what is still not unique gets ``#2``.
    """
    names: dict[int, str] = {}
    seen: dict[str, int] = {}
    weighted_first = sorted(nodes, key=lambda node: (node.type not in _WEIGHT_INPUT, node.position))
    for node in weighted_first:
        base = _layer_name(node)
        name = base if node.type in _WEIGHT_INPUT else f"{base}/{node.type.lower()}"
        seen[name] = seen.get(name, 0) + 1
        names[node.position] = name if seen[name] == 1 else f"{name}#{seen[name]}"
    return names


def _layer_name(node: _Node) -> str:
    if not node.outputs:
        return f"node_{node.position}"
    own = _tensor_name(node, node.outputs[0])
    if node.type in _WEIGHT_INPUT:
        weights = _tensor_name(node, node.inputs[_WEIGHT_INPUT[node.type]])
        last = own.startswith(SIGNATURE_PREFIX)  # the model's last layer, named as its output
        if weights and (last or weights in _pieces(node, node.outputs[0])):  # ``dense;;relu`` is the dense layer too
            return weights
    return own.removeprefix(SIGNATURE_PREFIX)


def _tensor_name(node: _Node, index: int) -> str:
    pieces = _pieces(node, index)
    return pieces[-1] if pieces else ""


def _pieces(node: _Node, index: int) -> list[str]:
    """Return the names that the converter joined into a tensor's, without its numbers."""
    if index < 0:
        return []
    name = flatbuffer.text(node.graph.tensors[index].name)
    return [piece for piece in re.split(r";+", name) if piece and not piece.isdigit()] or [name]
