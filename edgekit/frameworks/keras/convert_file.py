"""A ``.tflite`` file as a source: published as it is, or a float one quantized by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from edgekit.data.dataset import Array
from edgekit.errors import DataError, UnsupportedError
from edgekit.frameworks.keras.converted import Converted
from edgekit.frameworks.keras.file_layers import float_islands, float_layers, operators_inside
from edgekit.frameworks.keras.load import Source
from edgekit.program.tflite import flatbuffer, quantizer
from edgekit.program.tflite.graph import decode
from edgekit.records import Precision

FileKind = Literal["float", "half", "weights", "dynamic", "int8", "int16x8"]
"""What a file computes in: real numbers; the same with weights of 16 or 8 bits that are unpacked; 8-bit weights and
activations quantized at run time; integers."""

_AS_IT_IS: dict[FileKind, tuple[Precision, ...]] = {
    "float": ("fp32",),
    "half": ("fp32", "fp16"),
    "weights": ("fp32", "w8"),
    "dynamic": ("int8-dynamic",),
    "int8": ("int8",),
    "int16x8": ("int16x8",),
}
"""Kind -> the precisions at which the file itself is published. A file whose kernels quantize activations at run time
is no fp32 file, whatever it is called: the runtime's own outputs are not those of real arithmetic."""


def convert_file(
    source: Source, precision: Precision, calibration: Sequence[Array] | None, picked: Mapping[str, str]
) -> Converted:
    """Return a file's bytes at a precision: the file itself wherever it is of that precision already.

    Args:
        source: A ``.tflite`` source.
        precision: As asked for.
        calibration: Inputs ``[N, ...]``, for fixed scales.
        picked: Operator -> the user's rule that leaves it alone.

    Raises:
        UnsupportedError: The file was quantized in another way, which cannot be undone.
        DataError: Fixed scales, and no samples to fix them from.
    """
    path = Path(str(source.path))
    content = path.read_bytes()
    kind = file_kind(content)
    if precision in _AS_IT_IS[kind]:
        notes = () if kind in ("float", "int8", "int16x8") or precision != "fp32" else (_note(path, kind),)
        skipped = () if precision in ("fp32", "fp16") else float_layers(content, source, precision, picked)
        return Converted(content, notes, skipped)
    if kind != "float":
        fitting = _AS_IT_IS[kind][-1]
        raise UnsupportedError(
            f"{path.name} at {precision}",
            reason=f"this file is {fitting} already: what its quantization rounded away cannot be brought back",
            instead=f"--precision {fitting} (precision: {fitting}), or the float model that it was made from",
        )
    return _quantized(source, content, precision, calibration, picked)


def file_kind(content: bytes) -> FileKind:
    """Tell what a file computes in, by its activations and its weights."""
    model = flatbuffer.parse(content)
    graph = decode(model)[0]
    weights = {info.index for info in graph.tensors if info.constant is not None and len(info.shape) > 1}
    activations = {index for operator in graph.operators for index in operator.outputs if index >= 0} - weights
    quantized = [graph.tensors[index].quantization for index in sorted(activations)]
    if any(found is not None and found.dtype == "int16" for found in quantized):
        return "int16x8"
    if any(found is not None for found in quantized):
        return "int8"
    packed = {graph.tensors[index].name for index in weights if graph.tensors[index].quantization is not None}
    unpacked = [operator for operator in graph.operators if operator.type == "DEQUANTIZE"]
    if packed:
        into = {graph.tensors[operator.inputs[0]].name for operator in unpacked}
        return "weights" if packed <= into else "dynamic"
    return "half" if unpacked else "float"


def _note(path: Path, kind: FileKind) -> str:
    held = {"half": "16-bit weights", "weights": "8-bit weights"}[kind]
    return f"{path.name} computes with real numbers and holds {held}: it is taken as it is"


def _quantized(
    source: Source, content: bytes, precision: Precision, calibration: Sequence[Array] | None, picked: Mapping[str, str]
) -> Converted:
    leave = operators_inside(content, source, picked)
    by_tool = "quantized by ai-edge-quantizer from the float file"
    if precision == "fp16":
        return Converted(quantizer.halve_weights(content), (by_tool,))
    if precision in ("int8-dynamic", "w8", "w4"):
        result = quantizer.quantize_float_weights(content, precision, leave=leave)
        left = ", ".join(result.left)
        notes = (f"stored with 8 bits, since TFLite has no 4-bit kernels for them: {left}",) if left else ()
        return Converted(result.content, (by_tool, *notes), float_layers(result.content, source, precision, picked))
    if calibration is None:
        raise DataError(
            f"{precision} fixes the scales of activations from real samples: expected a data section (or "
            "--calibration-data); received none. Give samples, or choose int8-dynamic or w8, which need none"
        )
    samples = _by_name(content, calibration)
    quantize = quantizer.quantize_int8 if precision == "int8" else quantizer.quantize_int16x8
    integer = quantize(content, samples, leave=leave)
    islands = ", ".join(float_islands(integer, source, picked))
    notes = (f"left in floating point, since no tool makes integers of them: {islands}",) if islands else ()
    return Converted(integer, (by_tool, *notes), float_layers(integer, source, precision, picked))


def _by_name(content: bytes, calibration: Sequence[Array]) -> Iterator[dict[str, Array]]:
    names = [spec.name for spec in flatbuffer.model_inputs(flatbuffer.parse(content))]
    for sample in range(len(calibration[0])):
        yield {name: array[sample : sample + 1] for name, array in zip(names, calibration, strict=True)}
