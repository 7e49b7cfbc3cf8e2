"""Write a program as a ``.tflite`` file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from edgekit.contracts import ExportResult
from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.formats.tflite import dynamic_batch
from edgekit.formats.tflite.lowering import lower
from edgekit.formats.tflite.origin import publish_origin
from edgekit.program.serialize import load_program
from edgekit.program.tflite import flatbuffer, quantizer
from edgekit.program.weights import dequantize_weights, strip_activation_quantization, unfold_weights
from edgekit.records import ExportRequest, Precision

_RECURRENT = frozenset({torch.ops.aten.lstm.input, torch.ops.aten.gru.input, torch.ops.aten.rnn_tanh.input})
_WEIGHT_SCHEMES: dict[Precision, quantizer.WeightScheme] = {"int8-dynamic": "int8-dynamic", "w8": "w8", "w4": "w4"}


def export(request: ExportRequest) -> ExportResult:
    """Lower a program and write the artifact.

    ====================== =============================================================================================
    precision              way
    ====================== =============================================================================================
    fp32                   litert-torch on the float program
    fp16                   the same, then weights stored as float16
    int8                   litert-torch on the quantized program: its scales are the artifact's scales
    int8-dynamic, w8, w4   litert-torch on the program's dequantized weights, then the same integers put back
    int16x8                litert-torch on the float program, then calibrated int16 activations
    ====================== =============================================================================================

    A program that was read from a ``.tflite`` file (``origin``) is not lowered again: that file is the artifact.

    Raises:
        UnsupportedError: The program cannot be held at this precision, or cannot take a free batch.
        ArtifactError: The program's own file is missing or damaged.
        DataError: int16x8 without calibration samples.
        ToolError: The converter changed the order or the names of inputs or outputs.
    """
    if request.program.origin is not None:
        return publish_origin(request, request.program.origin)
    program = load_program(request.program.path)
    notes = _notes(request, program)
    content, more = _convert(request, program)
    _check_interface(request, content)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    if request.dynamic_batch:
        content = dynamic_batch.free_batch(content, request.work_dir)
    partial = request.output.with_name(request.output.name + ".partial")
    partial.write_bytes(content)
    partial.replace(request.output)
    return ExportResult(notes=(*notes, *more))


def _convert(request: ExportRequest, program: ExportedProgram) -> tuple[bytes, tuple[str, ...]]:
    """Return the flatbuffer and notes on what was done."""
    if request.precision == "int8":
        return _lower(request, unfold_weights(program), quantized=True), ()
    if request.precision in _WEIGHT_SCHEMES:
        floats = dequantize_weights(strip_activation_quantization(program))
        content = _lower(request, floats, quantized=False)
        result = quantizer.quantize_weights(content, _WEIGHT_SCHEMES[request.precision])
        left = ", ".join(result.left)
        notes = (f"stored as float32, since TFLite has no 4-bit kernels for them: {left}",) if result.left else ()
        return result.content, notes
    content = _lower(request, program, quantized=False)
    if request.precision == "fp16":
        return quantizer.halve_weights(content), (
            "weights are stored as float16; a CPU delegate without float16 kernels unpacks them to float32 at loading",
        )
    if request.precision == "int16x8":
        return quantizer.quantize_int16x8(content, _calibration_samples(request)), ()
    return content, ()


def _lower(request: ExportRequest, program: ExportedProgram, *, quantized: bool) -> bytes:
    return lower(
        program,
        input_names=[spec.name for spec in request.program.inputs],
        output_names=[spec.name for spec in request.program.outputs],
        quantized=quantized,
    )


def _calibration_samples(request: ExportRequest) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Read the calibration samples one by one, by input name, with int64 narrowed as the converter narrows it.

    Raises:
        DataError: There are none.
    """
    if request.program.calibration is None or not request.program.calibration.is_file():
        raise DataError("tflite at int16x8 needs calibration samples; received none. Name data in the recipe")
    with np.load(request.program.calibration) as arrays:
        inputs = [arrays[f"input_{position}"] for position in range(len(request.program.inputs))]
    for sample in range(len(inputs[0])):
        yield {
            spec.name: array[sample : sample + 1].astype(_narrowed(spec.dtype))
            for spec, array in zip(request.program.inputs, inputs, strict=True)
        }


def _narrowed(dtype: str) -> str:
    return "int32" if dtype == "int64" else dtype


def _notes(request: ExportRequest, program: ExportedProgram) -> tuple[str, ...]:
    notes = []
    for spec in request.program.inputs:
        if spec.dtype == "float64":
            raise UnsupportedError(
                f"tflite with the float64 input {spec.name!r}",
                reason="the format's kernels compute in 32 bits or fewer",
                instead="a model that takes float32",
            )
    wide = [spec.name for spec in request.program.inputs if spec.dtype == "int64"]
    if wide:
        notes.append(f"int64 inputs became int32: {', '.join(wide)}; feed int32 on the device")
    if any(node.target in _RECURRENT for node in program.graph.nodes):
        notes.append("recurrent layers are unrolled over their time steps; the artifact keeps no state between runs")
    return tuple(notes)


def _check_interface(request: ExportRequest, content: bytes) -> None:
    """Hold the artifact to the program's interface: the same names, in the same order.

    Raises:
        ToolError: The converter dropped, renamed or reordered an input or output.
    """
    path = request.work_dir / "converted.tflite"
    request.work_dir.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    model = flatbuffer.read_model(path)
    for side, wanted, found in (
        ("inputs", request.program.inputs, flatbuffer.model_inputs(model)),
        ("outputs", request.program.outputs, flatbuffer.model_outputs(model)),
    ):
        names, got = [spec.name for spec in wanted], [spec.name for spec in found]
        if names != got:
            raise ToolError(f"litert-torch changed the {side}: expected {names}, received {got}", stage="export:tflite")
