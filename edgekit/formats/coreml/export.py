"""Write an ML program as a ``.mlpackage``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from edgekit.contracts import ExportResult
from edgekit.errors import UnsupportedError
from edgekit.formats.coreml.calibrate import quantize_with_coremltools
from edgekit.formats.coreml.compress.passes import compress_weights
from edgekit.formats.coreml.compress.plan import DEFAULT_TARGET, check_target, needed_target, plan_weights
from edgekit.formats.coreml.float16 import Written, write_in_float16
from edgekit.formats.coreml.input_grid import round_inputs
from edgekit.formats.coreml.package import save_package
from edgekit.formats.coreml.rewrite import rewrite
from edgekit.formats.light_imports import import_coremltools
from edgekit.program.decompositions import unrolled_steps
from edgekit.program.edit import ProgramEdit
from edgekit.program.quantization import is_dequantize, is_quantize, quantization_of
from edgekit.program.quiet import quiet
from edgekit.program.serialize import load_program
from edgekit.program.weights import dequantize_weights
from edgekit.records import ExportRequest, TensorSpec, WeightCompression

_SCALE_TOLERANCE = 1e-3
"""Relative: float16 keeps 11 bits (5e-4) of a number above 6e-5, fewer below."""


def export(request: ExportRequest) -> ExportResult:
    """Convert a program to Core ML.

    ``fp32`` computes in float32, all others in float16 around the integers, as the Neural Engine does, but for what
    ``keep_float32`` leaves in float32; and unless float16 would move a scale of an ``int8`` program by more than a
    thousandth: then in float32. Inputs of an ``int8`` program
    are rounded to their grid in float32 first. Inputs and outputs are float32, int64 ones int32, boolean inputs
    float32.

    Raises:
        UnsupportedError: The deployment target cannot hold the precision, an operation has no counterpart, or float16
            breaks the model whatever is left in float32.
        RecipeError: ``keep_float32`` names a layer that does not exist.
        ModelError: The program cannot be read.
    """
    compression = _compression(request)
    target = max(needed_target(compression, request.precision), DEFAULT_TARGET)
    if request.minimum_deployment_target is not None:
        target = int(request.minimum_deployment_target.removeprefix("iOS"))
    coremltools = import_coremltools()
    program = load_program(request.program.path)
    steps = unrolled_steps(program)
    exact = request.precision == "fp32" or (request.precision == "int8" and not scales_fit_float16(program))
    source = dequantize_weights(program) if compression.scheme == "palette" else program
    with quiet("coremltools"):
        source = rewrite(source)
        source = round_inputs(source) if request.precision == "int8" else source

    def write(compute_precision: Any) -> tuple[str, ...]:
        try:
            with quiet("coremltools"):  # untested torch versions, values in numpy
                model = coremltools.convert(
                    source,
                    convert_to="mlprogram",
                    minimum_deployment_target=getattr(coremltools.target, f"iOS{target}"),
                    compute_precision=compute_precision,
                    outputs=[_output(coremltools, spec) for spec in request.program.outputs],
                    skip_model_load=True,
                )
                if compression.scheme == "coremltools":
                    compressed = quantize_with_coremltools(coremltools, model, program, request, compression)
                else:
                    compressed = compress_weights(coremltools, model, program, compression, request.precision)
        except NotImplementedError as error:
            raise UnsupportedError(
                "coreml with an operation of this model", reason=str(error), instead="other operations in forward"
            ) from error
        save_package(compressed.model, request.output, request.work_dir)
        return compressed.notes

    float32 = coremltools.precision.FLOAT32
    written = Written(notes=write(float32)) if exact else write_in_float16(request, source, write)
    return ExportResult(notes=(*_notes(request, steps, exact), *written.notes), half_precision=written.half_precision)


def _compression(request: ExportRequest) -> WeightCompression:
    """Return how weights are stored: as asked, or the format's own way; and refuse a target that cannot hold it."""
    if request.compression is None:
        planned = plan_weights(None, request.precision, request.program.precision, request.minimum_deployment_target)
        return planned.compression or WeightCompression(scheme="linear")
    check_target(request.compression, request.precision, request.minimum_deployment_target)
    return request.compression


def _output(coremltools: Any, spec: TensorSpec) -> Any:
    if spec.dtype.startswith("float"):
        return coremltools.TensorType(name=spec.name, dtype=np.float32)
    return coremltools.TensorType(name=spec.name)


def scales_fit_float16(program: ExportedProgram) -> bool:
    """Whether float16 holds every scale of a quantized program to a thousandth."""
    edit = ProgramEdit.of(program)
    scales: list[float] = []
    for node in edit.graph.nodes:
        if is_quantize(node) or is_dequantize(node):
            quantization = quantization_of(edit, node)
            scales += quantization.scale if quantization else ()
    exact = torch.tensor(scales, dtype=torch.float64)
    rounded = exact.to(torch.float16).to(torch.float64)
    return bool(((rounded - exact).abs() <= _SCALE_TOLERANCE * exact.abs()).all())


def _notes(request: ExportRequest, steps: int, exact: bool) -> list[str]:
    notes = []
    if steps:
        notes.append(f"recurrent layers are unrolled over {steps} steps")
    dtypes = {spec.dtype for spec in request.program.inputs}
    if "int64" in dtypes:
        notes.append("int64 inputs are int32")
    if "bool" in dtypes:
        notes.append("boolean inputs are float32 (0 or 1)")
    if request.precision == "int8" and request.program.precision == "int8":
        notes.append(
            "computes in float32 between integer operations: float16 would round a scale by more than a thousandth"
            if exact
            else "computes in float16 between integer operations; scales are rounded by less than a thousandth; "
            "quantized inputs are rounded to their grid in float32 first"
        )
    return notes
