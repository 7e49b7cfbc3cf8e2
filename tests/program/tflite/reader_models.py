"""Tiny TensorFlow functions as ``.tflite`` files, run by LiteRT and as the program that was read from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TensorFlow warns about itself while it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from edgekit.program.tflite.read import ReadProgram, read_program

Arrays = list[NDArray[Any]]
Spec = tuple[int | None, ...]
RNG_SEED = 0


def convert(
    function: Callable[..., Any],
    shapes: Sequence[Spec],
    path: Path,
    *,
    precision: str = "float",
    dtypes: Sequence[Any] | None = None,
    samples: Callable[[np.random.Generator], Arrays] | None = None,
    trackable: Any = None,
) -> Path:
    """Convert a function: ``float``, ``int8`` (with float32 at the edges), ``int16x8``, ``dynamic`` or ``fp16``."""
    kinds = dtypes or [tf.float32] * len(shapes)
    signature = [tf.TensorSpec(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)]
    concrete = tf.function(function, input_signature=signature).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], trackable)
    if precision != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in ("int8", "int16x8"):
        draw = samples or (lambda rng: [random_input(rng, *spec) for spec in zip(shapes, kinds, strict=True)])

        def calibration():
            rng = np.random.default_rng(RNG_SEED + 1)
            for _ in range(8):
                yield [array for array in draw(rng)]

        converter.representative_dataset = calibration
    if precision == "int16x8":
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
    path.write_bytes(converter.convert())
    return path


def random_input(rng: np.random.Generator, shape: Spec, kind: Any) -> NDArray[Any]:
    """Numbers around zero, small indices, or truth values."""
    sizes = [1 if size is None else size for size in shape]
    dtype = tf.as_dtype(kind).as_numpy_dtype
    if np.issubdtype(dtype, np.floating):
        return rng.normal(size=sizes).astype(dtype)
    return rng.integers(0, 2 if dtype is np.bool_ else 3, size=sizes).astype(dtype)


def run_litert(path: Path, inputs: Sequence[NDArray[Any]]) -> Arrays:
    """Run with LiteRT; quantized inputs and outputs are real numbers here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runtime = Interpreter(str(path), num_threads=1)
    details = runtime.get_input_details()
    for detail, array in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != array.shape:
            runtime.resize_tensor_input(detail["index"], array.shape)
    runtime.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        scale, point = detail["quantization"]
        if scale:
            limits = np.iinfo(detail["dtype"])
            array = np.clip(np.round(array / scale) + point, limits.min, limits.max).astype(detail["dtype"])
        runtime.set_tensor(detail["index"], array)
    runtime.reset_all_variables()
    runtime.invoke()
    results = []
    for detail in runtime.get_output_details():
        array, (scale, point) = runtime.get_tensor(detail["index"]), detail["quantization"]
        results.append((array.astype(np.float32) - point) * np.float32(scale) if scale else array)
    return results


def run_read(read: ReadProgram, inputs: Sequence[NDArray[Any]]) -> Arrays:
    """Run the program that was read."""
    with torch.no_grad():
        outputs = read.program.module()(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))
    return [output.numpy() for output in outputs]


def output_steps(read: ReadProgram) -> list[float | None]:
    """Return the step of each output, None where it does not end on a grid."""
    steps: list[float | None] = []
    for node in next(iter(reversed(read.graph.graph.nodes))).args[0]:
        source = node
        while source.op == "call_function" and "dequantize" not in str(source.target) and _moves(source):
            source = source.args[0][0] if "cat" in str(source.target) else source.args[0]
        steps.append(float(source.args[1]) if "dequantize_per_tensor" in str(source.target) else None)
    return steps


def _moves(node: torch.fx.Node) -> bool:
    return any(name in str(node.target) for name in ("reshape", "permute", "slice", "cat"))


def decibels(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the ratio of signal to error."""
    error = float(((expected.astype(np.float64) - actual.astype(np.float64)) ** 2).sum())
    return (
        float("inf")
        if error == 0
        else 10 * float(np.log10(max((expected.astype(np.float64) ** 2).sum(), 1e-30) / error))
    )


__all__ = ["convert", "decibels", "output_steps", "random_input", "read_program", "run_litert", "run_read", "tf"]
