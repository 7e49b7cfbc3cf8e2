"""Change the precision of a float ``.tflite`` with ai-edge-quantizer (AEQ), without changing what the program fixed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ai_edge_quantizer import algorithm_manager, calibrator, qtyping, recipe, recipe_manager
from ai_edge_quantizer.quantizer import Quantizer
from ai_edge_quantizer.utils import qsv_utils, tfl_flatbuffer_utils
from numpy.typing import NDArray

from edgekit.errors import UnsupportedError
from edgekit.program.grid import on_grid
from edgekit.program.tflite import flatbuffer

WeightScheme = Literal["int8-dynamic", "w8", "w4"]

_WEIGHT_AXIS = {
    "CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0, "EMBEDDING_LOOKUP": 0,
}  # fmt: skip
"""Operator -> the channel axis of its weights, which lie at input 1."""

_FOUR_BIT = frozenset({"CONV_2D", "FULLY_CONNECTED", "EMBEDDING_LOOKUP"})
"""Operators whose weights AEQ and the runtime take at four bits."""

_HALF_LIMIT = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A model after quantization.

    Attributes:
        content: The flatbuffer.
        left: Operators whose quantized weights could not be stored as integers (their values are the same, as floats).
    """

    content: bytes
    left: tuple[str, ...] = ()


def quantize_weights(content: bytes, scheme: WeightScheme) -> QuantizedModel:
    """Store the weights that lie on the program's grid as integers: the same integers that the program holds.

    A weight is touched only if that loses nothing, so layers that the program left alone stay as they are.

    Args:
        content: A float flatbuffer whose weights were dequantized from the program's integers.
        scheme: ``int8-dynamic`` (activations quantized at run time), ``w8`` or ``w4``.
    """
    model = flatbuffer.parse(content)
    bits = 4 if scheme == "w4" else 8
    manager = recipe_manager.RecipeManager()
    chosen, left = 0, []
    for graph, operator, kind, weights in _weighted_operators(model):
        if not on_grid(weights, axis=_WEIGHT_AXIS[kind], bits=bits):
            continue
        scope = tfl_flatbuffer_utils.get_op_scope(operator, graph.tensors)
        if bits == 4 and kind not in _FOUR_BIT:
            left.append(f"{kind} {scope.strip(';')}")
            continue
        chosen += 1
        manager.add_quantization_config(_exactly(scope), _aeq_operation(kind), op_config=_weight_config(scheme, bits))
    if not chosen:
        return QuantizedModel(content, tuple(left))
    return QuantizedModel(_apply(content, manager.get_quantization_recipe()), tuple(left))


def quantize_float_weights(
    content: bytes, scheme: WeightScheme, *, leave: Collection[str] = (), per_channel: bool = True
) -> QuantizedModel:
    """Quantize the weights of a float model, symmetric: ``scale = max|w| / (2^(bits-1) - 1)``.

    Args:
        content: A float flatbuffer.
        scheme: ``int8-dynamic`` (activations quantized at run time), ``w8`` or ``w4``.
        leave: Operators to leave alone, by the name of their first output.
        per_channel: One scale for each output channel; else one for all.

    Returns:
        The model; ``left`` names the operators that got eight bits instead of four, which TFLite's kernels do not take.
    """
    model = flatbuffer.parse(content)
    manager = recipe_manager.RecipeManager()
    chosen, left = 0, []
    for graph, operator, kind, _ in _weighted_operators(model):
        if _first_output(graph, operator) in leave:
            continue
        chosen += 1
        scope = tfl_flatbuffer_utils.get_op_scope(operator, graph.tensors)
        bits = 4 if scheme == "w4" and kind in _FOUR_BIT else 8
        if scheme == "w4" and bits == 8:
            left.append(f"{kind} {scope.strip(';')}")
        config = _weight_config(scheme, bits, per_channel=per_channel)
        manager.add_quantization_config(_exactly(scope), _aeq_operation(kind), op_config=config)
    if not chosen:
        return QuantizedModel(content, tuple(left))
    return QuantizedModel(_apply(content, manager.get_quantization_recipe()), tuple(left))


def halve_weights(content: bytes) -> bytes:
    """Store weights as float16, unpacked to float32 when the model is loaded.

    Raises:
        UnsupportedError: A weight is too large for float16.
    """
    _refuse_overflow(content)
    manager = recipe_manager.RecipeManager()
    manager.add_quantization_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
    )
    return _apply(content, manager.get_quantization_recipe())


def quantize_int16x8(
    content: bytes, samples: Iterable[Mapping[str, NDArray[np.generic]]], *, leave: Collection[str] = ()
) -> bytes:
    """Quantize weights to int8 and activations to int16, with the ranges that calibration samples reach.

    AEQ's own rule averages the minimum and maximum of the samples (0.95 of the old, 0.05 of the new), so that the
    first sample decides and most others are clipped. Here the ranges hold every sample.

    Args:
        content: A float flatbuffer.
        samples: Inputs by signature name, batch 1 each.
        leave: Operators to leave in floating point, by the name of their first output.
    """
    return _quantize_static(content, recipe.static_wi8_ai16(), samples, leave)


def quantize_int8(
    content: bytes, samples: Iterable[Mapping[str, NDArray[np.generic]]], *, leave: Collection[str] = ()
) -> bytes:
    """Quantize weights and activations to int8, with the ranges that calibration samples reach.

    Inputs and outputs stay real numbers, as TensorFlow's converter leaves them.

    Args:
        content: A float flatbuffer.
        samples: Inputs by signature name, batch 1 each.
        leave: Operators to leave in floating point, by the name of their first output.
    """
    rules = recipe.static_wi8_ai8()
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules += _left_alone(".*", side)
    return _quantize_static(content, rules, samples, leave)


def _quantize_static(
    content: bytes, rules: Any, samples: Iterable[Mapping[str, NDArray[np.generic]]], leave: Collection[str]
) -> bytes:
    for scope in _scopes(content, leave):
        rules += _left_alone(_exactly(scope), qtyping.TFLOperationName.ALL_SUPPORTED)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(rules)
    with _every_tensor_kept():
        observer = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        observer.calibrate({None: list(samples)}, manager)  # it walks them twice: a generator would leave none
        return _apply(content, rules, observer.get_model_qsvs())


def _left_alone(regex: str, operation: qtyping.TFLOperationName) -> Any:
    manager = recipe_manager.RecipeManager()
    manager.add_quantization_config(regex, operation, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    return manager.get_quantization_recipe()


def _scopes(content: bytes, names: Collection[str]) -> list[str]:
    """Return AEQ's own names of the operators whose first outputs have these names."""
    if not names:
        return []
    model = flatbuffer.parse(content)
    return [
        tfl_flatbuffer_utils.get_op_scope(operator, graph.tensors)
        for graph in model.subgraphs
        for operator in graph.operators
        if _first_output(graph, operator) in names
    ]


def _first_output(graph: Any, operator: Any) -> str:
    outputs = flatbuffer.indices(operator.outputs)
    return flatbuffer.text(graph.tensors[outputs[0]].name) if outputs else ""


def _exactly(scope: str) -> str:
    return f"^{re.escape(scope)}$"


@contextmanager
def _every_tensor_kept() -> Iterator[None]:
    """Silence LiteRT's warning about the memory of keeping every tensor: calibration does so on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _apply(content: bytes, rules: Any, ranges: Any = None) -> bytes:
    quantizer = Quantizer(content, rules)
    result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _weighted_operators(model: Any) -> Iterator[tuple[Any, Any, str, NDArray[np.float32]]]:
    """Yield ``(graph, operator, its kind, its weights)`` of every operator with constant float weights."""
    for graph in model.subgraphs:
        for operator in graph.operators:
            kind = flatbuffer.operator_name(model, operator)
            if kind not in _WEIGHT_AXIS:
                continue
            tensor = graph.tensors[operator.inputs[1]]
            data = flatbuffer.constant_of(model, tensor)
            if data is not None and flatbuffer.dtype_of(tensor) == "float32":
                yield graph, operator, kind, data.view(np.float32).reshape(flatbuffer.shape_of(tensor))


def _aeq_operation(kind: str) -> qtyping.TFLOperationName:
    name = "CONV_2D_TRANSPOSE" if kind == "TRANSPOSE_CONV" else kind
    return qtyping.TFLOperationName(name)


def _weight_config(scheme: WeightScheme, bits: int, *, per_channel: bool = True) -> qtyping.OpQuantizationConfig:
    dynamic = scheme == "int8-dynamic"
    granularity = qtyping.QuantGranularity.CHANNELWISE if per_channel else qtyping.QuantGranularity.TENSORWISE
    return qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=bits, symmetric=True, granularity=granularity),
        compute_precision=qtyping.ComputePrecision.INTEGER if dynamic else qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=not dynamic,
    )


def _refuse_overflow(content: bytes) -> None:
    model = flatbuffer.parse(content)
    for tensor in _float_weights(model):
        values = np.abs(np.asarray(flatbuffer.constant_of(model, tensor)).view(np.float32))
        largest = float(values.max(initial=0.0))
        if largest > _HALF_LIMIT:
            raise UnsupportedError(
                "tflite at fp16",
                reason=f"the weight {flatbuffer.text(tensor.name)!r} holds {largest:g}, above float16's "
                f"{_HALF_LIMIT:g}",
                instead="fp32, or w8",
            )


def _float_weights(model: Any) -> list[Any]:
    """Return the weights that are to be halved; other constants (masks, for one) stay float32."""
    return [graph.tensors[operator.inputs[1]] for graph, operator, _, _ in _weighted_operators(model)]
