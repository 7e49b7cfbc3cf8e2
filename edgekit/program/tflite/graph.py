"""A ``.tflite`` file as plain records: tensors decoded, operators with their options, constants as torch tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.errors import UnsupportedError
from edgekit.program.tflite import flatbuffer
from edgekit.records import Quantization

_TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "float64": torch.float64,
    "int4": torch.int8,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
    "resource": torch.int64,
}
_ACTIVATIONS = {code: name for name, code in vars(schema.ActivationFunctionType).items() if isinstance(code, int)}
_UNSIGNED_SHIFT = 128
"""uint8 with zero point z stands for the same real numbers as int8 with zero point z - 128."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor of the file.

    Attributes:
        index: Its place in its graph.
        name: As written by the converter: layer names joined by ``;`` where layers were fused.
        shape: Sizes, free ones as 1.
        free_batch: Whether the file says that axis 0 is free.
        dtype: What is held: ``int8`` also for quantized ``uint8``, whose zero point is moved.
        quantization: Scales, None for real numbers.
        constant: Its content (integers where it is quantized); None for a tensor that is computed.
        variable: Whether it is kept between runs (the state of a fused LSTM).
    """

    index: int
    name: str
    shape: tuple[int, ...]
    free_batch: bool
    dtype: torch.dtype
    quantization: Quantization | None
    constant: torch.Tensor | None
    variable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorInfo:
    """An operator of the file: ``inputs`` and ``outputs`` are places in the tensor list, -1 an operand left out."""

    index: int
    type: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInfo:
    """One graph of the file; the first is the model, others are the branches and bodies of its control flow."""

    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def decode(model: Any) -> tuple[GraphInfo, ...]:
    """Decode a checked model.

    Args:
        model: As :func:`edgekit.program.tflite.flatbuffer.read_model` gives it.

    Raises:
        UnsupportedError: A tensor holds something that a program cannot (strings, sparse storage).
    """
    return tuple(_decode_graph(model, graph) for graph in model.subgraphs)


def _decode_graph(model: Any, graph: Any) -> GraphInfo:
    return GraphInfo(
        tensors=tuple(_decode_tensor(model, tensor, index) for index, tensor in enumerate(graph.tensors or [])),
        operators=tuple(
            _decode_operator(model, operator, index) for index, operator in enumerate(graph.operators or [])
        ),
        inputs=tuple(flatbuffer.indices(graph.inputs)),
        outputs=tuple(flatbuffer.indices(graph.outputs)),
    )


def _decode_operator(model: Any, operator: Any, index: int) -> OperatorInfo:
    return OperatorInfo(
        index=index,
        type=flatbuffer.operator_name(model, operator),
        version=int(model.operatorCodes[operator.opcodeIndex].version),
        inputs=tuple(flatbuffer.indices(operator.inputs)),
        outputs=tuple(flatbuffer.indices(operator.outputs)),
        intermediates=tuple(flatbuffer.indices(operator.intermediates)),
        options=operator.builtinOptions if operator.builtinOptions is not None else operator.builtinOptions2,
    )


def _decode_tensor(model: Any, tensor: Any, index: int) -> TensorInfo:
    name, dtype = flatbuffer.text(tensor.name), flatbuffer.dtype_of(tensor)
    if dtype not in _TORCH_DTYPES:
        raise UnsupportedError(
            f"the tensor {name!r} of type {dtype}",
            reason="programs hold numbers of 4 to 64 bits and booleans",
            instead="a model without it: turn text into numbers before the model",
        )
    if tensor.sparsity is not None:
        raise UnsupportedError(
            f"the tensor {name!r} in sparse storage",
            reason="a program holds its weights densely, and the runtimes compute densely",
            instead="convert without the sparsity option; zeros in dense weights are kept as they are",
        )
    signature = flatbuffer.indices(tensor.shapeSignature)
    info = TensorInfo(
        index=index,
        name=name,
        shape=flatbuffer.shape_of(tensor),
        free_batch=bool(signature) and signature[0] < 0,
        dtype=_TORCH_DTYPES[dtype],
        quantization=_quantization(tensor, name),
        constant=_constant(model, tensor, dtype),
        variable=bool(tensor.isVariable),
    )
    return _signed(info) if dtype == "uint8" and info.quantization is not None else info


def _quantization(tensor: Any, name: str) -> Quantization | None:
    """Decode scales; where the channel axis lies outside of the tensor, as older converters wrote it, it is found.

    Raises:
        UnsupportedError: Scales for blocks of a channel.
        ValueError: Scales that are none, or fit no axis.
    """
    if tensor.quantization is not None and tensor.quantization.detailsType:
        raise UnsupportedError(
            f"the tensor {name!r} with scales for blocks inside of channels",
            reason="a program holds one scale for each channel",
            instead="a file quantized for each channel, or the TFLite format alone",
        )
    found = flatbuffer.quantization_of(tensor)
    if found is None:
        return None
    if not all(math.isfinite(scale) and scale >= 0 for scale in found.scale):
        raise ValueError(f"the scales of the tensor {name!r} are not positive numbers")
    shape = flatbuffer.shape_of(tensor)
    if found.axis is None or (found.axis < len(shape) and shape[found.axis] == len(found.scale)):
        return found
    fitting = [axis for axis, size in enumerate(shape) if size == len(found.scale)]
    if len(fitting) != 1:
        raise ValueError(f"the {len(found.scale)} scales of the tensor {name!r} fit no axis of {list(shape)}")
    return replace(found, axis=fitting[0])


def _constant(model: Any, tensor: Any, dtype: str) -> torch.Tensor | None:
    data = flatbuffer.constant_of(model, tensor)
    shape = flatbuffer.shape_of(tensor)
    if data is None:
        empty = 0 in shape and not tensor.isVariable
        return torch.zeros(shape, dtype=_TORCH_DTYPES[dtype]) if empty else None
    if dtype == "int4":
        return torch.from_numpy(_unpack_int4(data, int(np.prod(shape, dtype=np.int64))).reshape(shape))
    flat = np.frombuffer(data.tobytes(), dtype=np.dtype(dtype))
    return torch.from_numpy(flat.copy()).reshape(shape)


def _unpack_int4(data: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Two values a byte, the first in the lower half, in two's complement."""
    pairs = np.stack([data & 0xF, data >> 4], axis=-1).reshape(-1)[:count].astype(np.int8)
    return np.where(pairs > 7, pairs - 16, pairs).astype(np.int8)


def _signed(info: TensorInfo) -> TensorInfo:
    quantization = info.quantization
    if quantization is None:
        return info
    points = tuple(point - _UNSIGNED_SHIFT for point in quantization.zero_point)
    constant = info.constant
    return replace(
        info,
        dtype=torch.int8,
        quantization=replace(quantization, zero_point=points, dtype="int8"),
        constant=None if constant is None else (constant.to(torch.int16) - _UNSIGNED_SHIFT).to(torch.int8),
    )


def activation_of(options: Any) -> str:
    """Return an operator's fused activation by name, ``NONE`` where it has none."""
    code = getattr(options, "fusedActivationFunction", 0)
    return str(_ACTIVATIONS.get(code, code))
