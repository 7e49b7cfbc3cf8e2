"""Run a source model: what every artifact is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edgekit.data.dataset import Array
from edgekit.errors import DataError, ModelError, ToolError
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.signature import (
    flat_inputs,
    flat_outputs,
    input_names,
    output_names,
    pack_inputs,
    signature_inputs,
    signature_outputs,
)
from edgekit.program.tflite import flatbuffer
from edgekit.records import TensorSpec

__all__ = ["input_specs", "output_specs", "run_source"]

Execute = Callable[[Sequence[Array]], list[Array]]


def input_specs(source: Source) -> tuple[TensorSpec, ...]:
    """Describe the inputs at batch 1; other free sizes are None.

    The quantized inputs of a ``.tflite`` are real numbers (float32) that carry their quantization.

    Raises:
        ModelError: The model has a fixed batch size other than 1.
    """
    if source.library == "tflite":
        return tuple(_real(spec) for spec in flatbuffer.model_inputs(_read(source)))
    if source.library == "saved_model":
        return tuple(_spec(name, spec.dtype, spec.shape) for name, spec in signature_inputs(source.model).items())
    return tuple(
        _spec(name, tensor.dtype, tensor.shape)
        for name, tensor in zip(input_names(source.model), flat_inputs(source.model), strict=True)
    )


def output_specs(source: Source) -> tuple[TensorSpec, ...]:
    """Describe the outputs at batch 1, in the order of :func:`run_source`; free sizes are None."""
    if source.library == "tflite":
        return tuple(_real(spec) for spec in flatbuffer.model_outputs(_read(source)))
    if source.library == "saved_model":
        return tuple(_spec(name, spec.dtype, spec.shape) for name, spec in signature_outputs(source.model).items())
    return tuple(
        _spec(name, tensor.dtype, tensor.shape)
        for name, tensor in zip(output_names(source.model), source.model.outputs, strict=True)
    )


def run_source(source: Source, inputs: Sequence[Array], *, batch: int = 32) -> tuple[Array, ...]:
    """Run a source in inference mode.

    Args:
        source: The model.
        inputs: Of the dtypes and shapes of :func:`input_specs`, batch in axis 0 (see ``feed.as_arrays``).
        batch: Samples at a time, where the model takes any number; else they go one by one.

    Returns:
        Every output, flat, batch in axis 0. Quantized outputs are real numbers (float32).

    Raises:
        DataError: The model does not take such inputs.
        ModelError: It returns something that is no batch.
        ToolError: The runtime of a ``.tflite`` source cannot load or run it.
    """
    samples = {len(array) for array in inputs}
    if len(samples) != 1 or 0 in samples:
        raise DataError(f"expected as many samples in every input, at least one; received {sorted(samples)}")
    size = batch if _takes_any_batch(source) else 1
    execute = _executor(source, inputs)
    parts = [execute([array[start : start + size] for array in inputs]) for start in range(0, samples.pop(), size)]
    outputs = []
    for name, arrays in zip((spec.name for spec in output_specs(source)), zip(*parts, strict=True), strict=True):
        if any(array.ndim == 0 for array in arrays):
            raise ModelError(f"output {name!r} is a single number: expected one row a sample, batch in axis 0")
        outputs.append(np.concatenate(arrays))
    return tuple(outputs)


def _executor(source: Source, inputs: Sequence[Array]) -> Execute:
    if source.library == "tflite":
        return _TfliteRunner(source)
    call = _call_signature if source.library == "saved_model" else _call_model

    def execute(arrays: Sequence[Array]) -> list[Array]:
        try:
            return [_real_array(value.numpy()) for value in call(source, [tf.constant(array) for array in arrays])]
        except REFUSALS as error:
            given = ", ".join(f"{array.dtype} {list(array.shape)}" for array in inputs)
            raise DataError(
                f"the model does not take the data's samples: it received {given} and raised {type(error).__name__}: "
                f"{_reason(error)}. Check the shapes, dtypes and layout of the data"
            ) from error

    return execute


def _call_model(source: Source, tensors: list[Any]) -> list[Any]:
    returned = source.model(pack_inputs(source.model, tensors), training=False)
    return [tf.convert_to_tensor(value) for value in flat_outputs(returned, source.model)]


def _call_signature(source: Source, tensors: list[Any]) -> list[Any]:
    returned = source.model(**dict(zip(signature_inputs(source.model), tensors, strict=True)))
    return [returned[name] for name in signature_outputs(source.model)]


def _takes_any_batch(source: Source) -> bool:
    if source.library == "tflite":
        return False
    if source.library == "saved_model":
        shapes = [spec.shape for spec in signature_inputs(source.model).values()]
    else:
        shapes = [tensor.shape for tensor in flat_inputs(source.model)]
    return all(shape[0] is None for shape in shapes)


def _real_array(array: Array) -> Array:
    """Widen half-precision outputs (of a mixed-precision model): what compares them knows float32 and float64."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _spec(name: str, dtype: Any, shape: Any) -> TensorSpec:
    sizes = list(shape)
    if not sizes or sizes[0] not in (None, 1):
        raise ModelError(
            f"{name!r} has the shape {sizes}: expected a batch in axis 0 that is free or 1. Build the model without a "
            "batch size, or with 1"
        )
    known = dtype.name if isinstance(dtype, tf.DType) else str(dtype)
    return TensorSpec(name=name, dtype="float32" if known in ("float16", "bfloat16") else known, shape=(1, *sizes[1:]))


def _real(spec: TensorSpec) -> TensorSpec:
    described = _spec(spec.name, "float32" if spec.quantization is not None else spec.dtype, spec.shape)
    return TensorSpec(name=spec.name, dtype=described.dtype, shape=described.shape, quantization=spec.quantization)


def _read(source: Source) -> Any:
    return flatbuffer.read_model(_path(source))


def _path(source: Source) -> Path:
    if source.path is None:
        raise ModelError("a .tflite source without a file")
    return source.path


class _TfliteRunner:
    """Runs a ``.tflite`` file with LiteRT, one sample at a time, from a fresh state each."""

    def __init__(self, source: Source) -> None:
        model = _read(source)
        self._name = _path(source).name
        self._inputs = flatbuffer.model_inputs(model)
        self._outputs = flatbuffer.model_outputs(model)
        try:
            self._interpreter: Any = Interpreter(model_path=str(_path(source)), num_threads=1)
            self._interpreter.allocate_tensors()
        except REFUSALS as error:
            raise ToolError(
                f"LiteRT cannot load {self._name}: {_reason(error)}. Convert the model anew with today's TensorFlow, "
                "or give the Keras model that it was made from",
                stage="load",
            ) from error

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        """Run one sample; real numbers in and out."""
        details = self._interpreter.get_input_details()
        for spec, detail, array in zip(self._inputs, details, arrays, strict=True):
            self._feed(spec, detail, array)
        try:
            self._interpreter.reset_all_variables()
            self._interpreter.invoke()
        except REFUSALS as error:
            raise ToolError(f"LiteRT failed to run {self._name}: {_reason(error)}", stage="load") from error
        found = [self._interpreter.get_tensor(detail["index"]) for detail in self._interpreter.get_output_details()]
        return [_dequantized(spec, array) for spec, array in zip(self._outputs, found, strict=True)]

    def _feed(self, spec: TensorSpec, detail: Any, array: Array) -> None:
        value = _quantized(spec, array)
        try:
            if tuple(detail["shape"]) != value.shape:
                self._interpreter.resize_tensor_input(detail["index"], value.shape)
                self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(detail["index"], value)
        except REFUSALS as error:
            raise DataError(
                f"input {spec.name!r} of {self._name} takes {spec.dtype} {list(spec.shape)}; received {value.dtype} "
                f"{list(value.shape)}: {_reason(error)}"
            ) from error


def _quantized(spec: TensorSpec, array: Array) -> Array:
    if spec.quantization is None or array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all():
        raise DataError(f"input {spec.name!r}: expected finite numbers; received NaN or infinity")
    limits = np.iinfo(spec.quantization.dtype)
    steps = np.rint(array.astype(np.float32) * np.float32(1.0 / spec.quantization.scale[0]))
    clipped = np.clip(steps + np.float32(spec.quantization.zero_point[0]), limits.min, limits.max)
    quantized: Array = clipped.astype(spec.quantization.dtype)
    return quantized


def _dequantized(spec: TensorSpec, array: Array) -> Array:
    if spec.quantization is None:
        return _real_array(array)
    centred = array.astype(np.int64) - spec.quantization.zero_point[0]
    return centred.astype(np.float32) * np.float32(spec.quantization.scale[0])


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line] or [type(error).__name__]
    return lines[0][:200]
