"""Read a ``.tflite`` flatbuffer, checked before any runtime touches it.

Schema: tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3, as shipped in ``ai_edge_litert``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ArtifactError
from edgekit.records import Quantization, TensorSpec

IDENTIFIER = b"TFL3"
SCHEMA_VERSION_SUPPORTED = 3

_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.BFLOAT16: "bfloat16",
    schema.TensorType.FLOAT64: "float64",
    schema.TensorType.INT2: "int2",
    schema.TensorType.INT4: "int4",
    schema.TensorType.INT8: "int8",
    schema.TensorType.INT16: "int16",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.UINT16: "uint16",
    schema.TensorType.UINT32: "uint32",
    schema.TensorType.UINT64: "uint64",
    schema.TensorType.BOOL: "bool",
    schema.TensorType.STRING: "str",
    schema.TensorType.RESOURCE: "resource",
}
_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_MALFORMED = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
"""What the generated reader raises on offsets that lead nowhere."""


def read_model(path: Path) -> Any:
    """Read and check a model.

    Returns:
        The model as the generated object tree (``schema.ModelT``).

    Raises:
        ArtifactError: No such file, not a TFLite file, truncated, damaged, or of another schema version.
    """
    if not path.is_file():
        raise ArtifactError(f"expected a .tflite file; there is no file {str(path)!r}")
    data = path.read_bytes()
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ArtifactError(
            f"expected a .tflite file with the identifier {IDENTIFIER.decode()!r} at byte 4; received "
            f"{data[4:8]!r} in {str(path)!r} ({len(data)} bytes). Export it again"
        )
    try:
        model = parse(data)
        _check_references(model)
    except _MALFORMED as error:
        raise ArtifactError(
            f"{str(path)!r} is truncated or damaged: it cannot be read as a .tflite file "
            f"({type(error).__name__}: {error}). Export it again"
        ) from error
    if model.version != SCHEMA_VERSION_SUPPORTED:
        raise ArtifactError(
            f"{str(path)!r} has TFLite schema version {model.version}; "
            f"edgekit reads version {SCHEMA_VERSION_SUPPORTED}. Convert it again"
        )
    return model


def parse(content: bytes) -> Any:
    """Read a model that was not checked, such as a converter has just made.

    The data of large buffers may lie behind the flatbuffer, which then holds their offset and size only: so do files of
    more than 2 GiB, and all that ai-edge-quantizer makes with more than 256 KiB of constants. They are taken in: a
    model that is changed and written again has them where every reader looks.

    Raises:
        ValueError: A buffer lies outside of the file.
        As the generated reader, of offsets that lead nowhere.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(content):
                raise ValueError("a buffer lies outside of the file")
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any, path: Path) -> None:
    """Write a model, whole or not at all."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(bytes(builder.Output()))
    partial.replace(path)


def _check_references(model: Any) -> None:
    """Follow every index of the model once.

    Raises:
        IndexError: An index leads outside of its list.
        ValueError: The model has no graph.
    """
    if not model.subgraphs:
        raise ValueError("the model has no graph")
    for graph in model.subgraphs:
        tensors = list(graph.tensors if graph.tensors is not None else [])
        for tensor in tensors:
            _within(tensor.buffer, len(model.buffers))
        for operator in graph.operators if graph.operators is not None else []:
            _within(operator.opcodeIndex, len(model.operatorCodes))
            for index in [*indices(operator.inputs), *indices(operator.outputs)]:
                _within(index, len(tensors), lowest=-1)
        for index in [*indices(graph.inputs), *indices(graph.outputs)]:
            _within(index, len(tensors))


def _within(index: int, length: int, *, lowest: int = 0) -> None:
    if not lowest <= index < length:
        raise IndexError(f"index {index} of {length}")


def indices(vector: Any) -> list[int]:
    """Return a flatbuffer's index vector as a list; an absent one is empty."""
    return [] if vector is None else [int(index) for index in vector]


def operator_name(model: Any, operator: Any) -> str:
    """Return an operator's name: ``CONV_2D``, or the custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM and code.customCode:
        return text(code.customCode)
    return str(_OPERATOR_NAMES.get(builtin, f"BUILTIN_{builtin}"))


def text(value: Any) -> str:
    """Return a flatbuffer string as text."""
    if isinstance(value, bytes):
        return str(value, "utf-8", errors="replace")
    return str(value or "")


def dtype_of(tensor: Any) -> str:
    """Return a tensor's dtype in numpy's words (``int4`` and ``int2`` where it is narrower than a byte)."""
    return str(_DTYPES.get(tensor.type, f"type{tensor.type}"))


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's shape, free sizes as 1."""
    return tuple(indices(tensor.shape))


def constant_of(model: Any, tensor: Any) -> Any | None:
    """Return a constant tensor's bytes (uint8 ``[N]``), None for a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or len(data) == 0 else np.asarray(data, dtype=np.uint8)


def quantization_of(tensor: Any) -> Quantization | None:
    """Return a tensor's quantization, None where it has none."""
    found = tensor.quantization
    if found is None or found.scale is None or len(found.scale) == 0:
        return None
    scales = tuple(float(scale) for scale in found.scale)
    points = indices(found.zeroPoint) or [0] * len(scales)
    return Quantization(
        scale=scales,
        zero_point=tuple(points if len(points) == len(scales) else points[:1] * len(scales)),
        axis=int(found.quantizedDimension) if len(scales) > 1 else None,
        dtype=dtype_of(tensor),
    )


def model_inputs(model: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs, named as in the model's signature, in the order of its graph."""
    return _specs(model, model.subgraphs[0].inputs, "inputs")


def model_outputs(model: Any) -> tuple[TensorSpec, ...]:
    """Return the outputs, named as in the model's signature, in the order of its graph."""
    return _specs(model, model.subgraphs[0].outputs, "outputs")


def _specs(model: Any, order: Any, side: str) -> tuple[TensorSpec, ...]:
    signature = (model.signatureDefs or [None])[0]
    names = {item.tensorIndex: text(item.name) for item in (getattr(signature, side) or [])} if signature else {}
    graph = model.subgraphs[0]
    return tuple(
        _spec(graph.tensors[index], names.get(index) or text(graph.tensors[index].name)) for index in indices(order)
    )


def _spec(tensor: Any, name: str) -> TensorSpec:
    sizes = indices(tensor.shapeSignature) or list(shape_of(tensor))
    return TensorSpec(
        name=name,
        dtype=dtype_of(tensor),
        shape=tuple(None if size < 0 else size for size in sizes),
        quantization=quantization_of(tensor),
    )
