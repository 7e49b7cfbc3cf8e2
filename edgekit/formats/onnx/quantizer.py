"""Change the precision of an ONNX model without changing what the program fixed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgekit.errors import UnsupportedError
from edgekit.program.grid import on_grid

_FOUR_BITS = (-8, 7)
_HALF_LIMIT = float(np.finfo(np.float16).max)
_INFINITE = 1e30
"""Constants beyond stand for infinity (masks of attention scores): they become float16's largest number."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Hold weights and compute in float16; inputs and outputs stay as they are.

    Raises:
        UnsupportedError: A constant is too large for float16 (the converter would clip it silently).
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            largest = float(values[values < _INFINITE].max(initial=0.0))
            if largest > _HALF_LIMIT:
                raise UnsupportedError(
                    "onnx at fp16",
                    reason=f"the constant {tensor.name!r} holds {largest:g}, above float16's {_HALF_LIMIT:g}",
                    instead="fp32, or w8",
                )
    with warnings.catch_warnings():  # it warns of every constant below float16's smallest number, which becomes 0
        warnings.simplefilter("ignore", UserWarning)
        converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, max_finite_val=_HALF_LIMIT)
    OnnxModel.graph_topological_sort(converted.graph, is_deterministic=True)  # the converter appends its casts
    return converted


def pack_four_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store int8 weights whose values fit into four bits as int4, two a byte."""
    weights = {node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name not in weights or tensor.data_type != TensorProto.INT8:
            continue
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and _FOUR_BITS[0] <= values.min() and values.max() <= _FOUR_BITS[1]:
            _pack(tensor, values)
            _drop_zero_point(model, tensor.name)
    return model


def quantize_dynamic(model: onnx.ModelProto, work_dir: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Quantize the matrix products whose weights lie on the program's grid, their inputs at run time.

    They become ``DynamicQuantizeLinear`` and ``MatMulInteger`` with the same integers that the program holds.

    Args:
        model: A float model whose weights were dequantized from the program's integers.
        work_dir: Scratch folder.

    Returns:
        The model, and the names of convolutions whose weights were on the grid but stay float: ONNX Runtime's
        ``ConvInteger`` takes one scale for the whole weight, the program has one a channel.
    """
    wrapper = ONNXModel(model)
    wrapper.replace_gemm_with_matmul()  # as the quantizer will, which gives these nodes other names
    model = wrapper.model
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    chosen: list[str] = []
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Conv") or len(node.input) < 2 or node.input[1] not in weights:
            continue
        if not on_grid(_values(weights[node.input[1]]), axis=0 if node.op_type == "Conv" else -1, bits=8):
            continue
        (left if node.op_type == "Conv" else chosen).append(node.name)
    if not chosen:
        return model, tuple(left)
    path = work_dir / "dynamic.onnx"
    ort_quantize_dynamic(
        model,
        path,
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=chosen,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    return onnx.load(path), tuple(left)


def _values(tensor: onnx.TensorProto) -> NDArray[np.floating]:
    values: NDArray[np.floating] = numpy_helper.to_array(tensor)
    return values


def _pack(tensor: onnx.TensorProto, values: NDArray[np.int8]) -> None:
    low, high = np.resize(values.reshape(-1), values.size + values.size % 2).reshape(-1, 2).T
    if values.size % 2:
        high = np.append(high[:-1], 0)
    packed = ((low & 0xF) | ((high & 0xF) << 4)).astype(np.uint8)
    tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, values.shape, packed.tobytes(), raw=True))


def _drop_zero_point(model: onnx.ModelProto, weight: str) -> None:
    """Leave out a weight's zero point: it must have the weight's dtype, and zero is the default."""
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == weight:
            del node.input[2:]
    kept = [value for value in model.graph.value_info if value.name != weight]  # it may be listed as int8
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
