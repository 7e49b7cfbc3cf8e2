"""The operations of an XNNPACK graph inside a ``.pte`` file, as records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_DTYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_quint8": "uint8",
    "xnn_datatype_qint32": "int32",
    "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qcint32": "int32",
    "xnn_datatype_qcint4": "int4",
    "xnn_datatype_qdint8": "int8",
    "xnn_datatype_qbint4": "int4",
    "xnn_datatype_qpint8": "int8",
    "xnn_datatype_int32": "int32",
    "xnn_datatype_pfp32": "float32",
}
_LAYOUT = frozenset(
    {"XNNStaticTranspose", "XNNStaticReshape", "XNNStaticSlice", "XNNStaticConstantPad", "XNNCopy"}
    | {f"XNNConcatenate{count}" for count in range(2, 6)}
)
_NO_HANDLE = 65535
Kind = Literal["compute", "quantize", "dequantize", "layout"]


@dataclass(frozen=True, slots=True)
class Constant:
    """What an operation reads that the file holds."""

    dtype: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class XnnNode:
    """One operation of an XNNPACK graph.

    Attributes:
        type: Such as ``XNNConv2d``.
        kind: As in ``records.Operator``.
        compute_dtype: As in ``records.Operator``.
        macs: Multiply-accumulates at the upper bound of a free batch.
        weight_bytes: Bytes of the constants it reads (its weight, bias and scales).
        weight_dtype: Of its largest constant.
        handle: Debug handle of the exported operation that it stands for; None for those that the delegate added.
    """

    type: str
    kind: Kind
    compute_dtype: str
    macs: int
    weight_bytes: int
    weight_dtype: str | None
    handle: int | None


@dataclass(frozen=True, slots=True)
class _Value:
    dtype: str
    shape: tuple[int, ...]
    constant: Constant | None


def read_nodes(
    graph: Mapping[str, Any], constants: Mapping[str, int], external: Mapping[int, Constant]
) -> Iterator[XnnNode]:
    """Walk the operations of a graph in execution order.

    Args:
        graph: As ``container.read_xnnpack_payload`` returns it.
        constants: Sizes in bytes of the constants that are stored by name, beside the graph.
        external: Inputs of the delegate (by number) that are constants of the file, dequantized before the call.
    """
    values = dict(_read_value(item["xvalue_union"], graph, constants, external) for item in graph["xvalues"])
    for node in graph["xnodes"]:
        fields = node["xnode_union"]
        inputs = [values[fields[key]] for key in _INPUT_KEYS if fields.get(key) in values]
        outputs = [values[fields[key]] for key in ("output_id", "output1_id") if fields.get(key) in values]
        output = outputs[0] if outputs else inputs[0]
        kind = _kind(node["xnode_union_type"], inputs, output)
        held = [value.constant for value in inputs if value.constant is not None]
        largest = max(held, key=lambda constant: constant.size_bytes, default=None)
        handle = node.get("debug_handle", _NO_HANDLE)
        yield XnnNode(
            type=node["xnode_union_type"],
            kind=kind,
            compute_dtype="none" if kind == "layout" else _compute_dtype(inputs, output),
            macs=_macs(node["xnode_union_type"], fields, inputs, output),
            weight_bytes=sum(constant.size_bytes for constant in held),
            weight_dtype=largest.dtype if largest is not None else None,
            handle=None if handle == _NO_HANDLE else handle,
        )


_INPUT_KEYS = ("input_id", *(f"input{count}_id" for count in range(1, 6)), "filter_id", "bias_id", "negative_slope_id")


def _read_value(
    union: Mapping[str, Any], graph: Mapping[str, Any], constants: Mapping[str, int], external: Mapping[int, Constant]
) -> tuple[int, _Value]:
    tensor = union.get("tensor_value", union)
    dtype = _DTYPES.get(tensor["datatype"], tensor["datatype"])
    constant = external.get(tensor["external_id"])
    if tensor["constant_buffer_idx"]:
        entry = graph["constant_data"][tensor["constant_buffer_idx"]]
        constant = Constant(dtype, constants.get(entry.get("named_key", ""), entry["size"]))
    return tensor["id_out"], _Value(dtype, tuple(tensor.get("dims", ())), constant)


def _kind(node_type: str, inputs: list[_Value], output: _Value) -> Kind:
    if node_type in _LAYOUT:
        return "layout"
    if node_type != "XNNConvert":
        return "compute"
    source = inputs[0].dtype
    if source.startswith("float") and output.dtype.startswith("float"):
        return "layout"
    return "quantize" if source.startswith("float") else "dequantize"


def _compute_dtype(inputs: list[_Value], output: _Value) -> str:
    """Matrix products with integer operands compute in integers, even where they return floats (dynamic int8)."""
    if inputs and inputs[0].dtype in ("int8", "uint8"):
        return inputs[0].dtype
    return output.dtype


def _macs(node_type: str, fields: Mapping[str, Any], inputs: list[_Value], output: _Value) -> int:
    produced = math.prod(output.shape)
    if node_type in ("XNNConv2d", "XNNDepthwiseConv2d"):
        return produced * int(fields["kernel_height"] * fields["kernel_width"] * fields["group_input_channels"])
    if node_type == "XNNConvTranspose2d":
        kernel = int(fields["kernel_height"] * fields["kernel_width"])
        return math.prod(inputs[0].shape) * kernel * int(fields["group_output_channels"])
    if node_type in ("XNNFullyConnected", "XNNBatchMatrixMultiply"):
        return produced * inputs[0].shape[-1]
    return 0
