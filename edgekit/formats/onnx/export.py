"""Write a program as an ``.onnx`` file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import onnx
import torch
from torch.export import ExportedProgram

from edgekit.contracts import ExportResult
from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.onnx import quantizer
from edgekit.formats.onnx.model_file import write_model
from edgekit.program.serialize import load_program
from edgekit.program.weights import dequantize_weights, strip_activation_quantization
from edgekit.records import ExportRequest, TensorSpec

OPSET = 20
"""From 21 on, ONNX Runtime 1.32 cannot load models with quantized dense layers on 3-D inputs: its optimizer gives a
``QuantizeLinear`` an ``output_dtype`` and then another dtype of zero point (``output_dtype INT8 does not match``)."""
FOUR_BIT_OPSET = 21
"""The first with 4-bit integers; weight-only models quantize no activations."""


def export(request: ExportRequest) -> ExportResult:
    """Lower a program and write the artifact.

    ============= =================================================================================================
    precision     way
    ============= =================================================================================================
    fp32          torch.onnx on the float program
    fp16          the same, then weights and computation in float16 between float32 inputs and outputs
    int8          torch.onnx on the quantized program: explicit QuantizeLinear/DequantizeLinear with its scales
    int8-dynamic  torch.onnx on the dequantized weights, then the same integers with dynamically quantized inputs
    w8, w4        torch.onnx on the quantized program: integer weights followed by DequantizeLinear
    ============= =================================================================================================

    Raises:
        UnsupportedError: A free batch was asked of a program that fixes it.
        ToolError: The exporter changed the interface.
    """
    if request.dynamic_batch and not request.program.dynamic_batch:
        raise UnsupportedError(
            "onnx with a free batch",
            reason="the program was recorded at a fixed batch",
            instead="batch: dynamic in the recipe, or batch: 1",
        )
    program = load_program(request.program.path)
    request.work_dir.mkdir(parents=True, exist_ok=True)
    notes: tuple[str, ...] = ()
    if request.precision == "int8-dynamic":
        floats = dequantize_weights(strip_activation_quantization(program))
        model, left = quantizer.quantize_dynamic(_lower(request, floats), request.work_dir)
        if left:
            notes = (f"stored as float32, since ONNX Runtime has no dynamic kernels for them: {', '.join(left)}",)
    else:
        model = _lower(request, program)
        if request.precision in ("w8", "w4"):
            notes = ("ONNX Runtime unpacks integer weights on every run: a smaller file, not a faster model",)
    if request.precision == "fp16":
        model = quantizer.to_half(model)
    if request.precision == "w4":
        model = quantizer.pack_four_bits(model)
    _check_interface(request, model)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    write_model(model, request.output)
    return ExportResult(notes=notes)


def _lower(request: ExportRequest, program: ExportedProgram) -> onnx.ModelProto:
    path = request.work_dir / "converted.onnx"
    with warnings.catch_warnings():  # torch.onnx's own use of deprecated pytree and opset functions
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        converted = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[spec.name for spec in request.program.inputs],
            output_names=[spec.name for spec in request.program.outputs],
            opset_version=FOUR_BIT_OPSET if request.precision == "w4" else OPSET,
            verbose=False,
        )
    if converted is None:
        raise ToolError("torch.onnx.export returned no program", stage="export:onnx")
    converted.save(str(path), external_data=False)
    return onnx.load(path)


def _check_interface(request: ExportRequest, model: onnx.ModelProto) -> None:
    for side, wanted, found in (
        ("inputs", request.program.inputs, model.graph.input),
        ("outputs", request.program.outputs, model.graph.output),
    ):
        if _names(wanted) != [value.name for value in found]:
            received = [value.name for value in found]
            message = f"torch.onnx changed the {side}: expected {_names(wanted)}, received {received}"
            raise ToolError(message, stage="export:onnx")


def _names(specs: Sequence[TensorSpec]) -> list[str]:
    return [spec.name for spec in specs]
