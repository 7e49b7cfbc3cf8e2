"""Write an ML program as a ``.mlpackage``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from edgekit.contracts import ExportResult
from edgekit.errors import UnsupportedError
from edgekit.formats.coreml.input_grid import float16_behind_inputs, round_inputs
from edgekit.formats.coreml.package import save_package
from edgekit.formats.coreml.rewrite import rewrite
from edgekit.formats.light_imports import import_coremltools
from edgekit.program.decompositions import unrolled_steps
from edgekit.program.edit import ProgramEdit
from edgekit.program.quantization import is_dequantize, is_quantize, quantization_of
from edgekit.program.quiet import quiet
from edgekit.program.serialize import load_program
from edgekit.program.weights import dequantize_weights, folded_weights
from edgekit.records import ExportRequest, TensorSpec

DEFAULT_TARGET = "iOS17"
NEEDED_TARGET = {("int8", "linear"): 17, ("w8", "linear"): 16, ("w8", "palette"): 16, ("w4", "linear"): 18}
NEEDED_TARGET[("w4", "palette")] = 18
"""(precision, compression) -> the first iOS whose ML programs hold it."""
_SCALE_TOLERANCE = 1e-3
"""Relative: float16 keeps 11 bits (5e-4) of a number above 6e-5, fewer below."""
_LEAST_PALETTIZED = 512
"""Elements; a table of values would not make smaller weights smaller."""


def export(request: ExportRequest) -> ExportResult:
    """Convert a program to Core ML.

    ``fp32`` computes in float32, all others in float16 around the integers, as the Neural Engine does, unless float16
    would move a scale of an ``int8`` program by more than a thousandth: then in float32. Inputs of an ``int8`` program
    are rounded to their grid in float32 first. Inputs and outputs are float32, int64 ones int32, boolean inputs
    float32.

    Raises:
        UnsupportedError: The deployment target cannot hold the precision, or an operation has no counterpart.
        ModelError: The program cannot be read.
    """
    compression = request.compression or "linear"
    target = _target(request, compression)
    coremltools = import_coremltools()
    program = load_program(request.program.path)
    steps = unrolled_steps(program)
    exact = request.precision == "fp32" or (request.precision == "int8" and not scales_fit_float16(program))
    palette = request.precision in ("w8", "w4") and compression == "palette"
    source = dequantize_weights(program) if palette else program
    try:
        with quiet("coremltools"):  # untested torch versions, values in numpy
            source = rewrite(source)
            model = coremltools.convert(
                round_inputs(source) if request.precision == "int8" else source,
                convert_to="mlprogram",
                minimum_deployment_target=getattr(coremltools.target, f"iOS{target}"),
                compute_precision=coremltools.precision.FLOAT32 if exact else float16_behind_inputs(coremltools),
                outputs=[_output(coremltools, spec) for spec in request.program.outputs],
                skip_model_load=True,
            )
            if palette:
                model = palettize(coremltools, model, program, bits=8 if request.precision == "w8" else 4)
    except NotImplementedError as error:
        raise UnsupportedError(
            "coreml with an operation of this model", reason=str(error), instead="other operations in forward"
        ) from error
    save_package(model, request.output, request.work_dir)
    return ExportResult(notes=tuple(_notes(request, steps, exact, palette)))


def _target(request: ExportRequest, compression: str) -> int:
    """Return the iOS version to convert for: the asked one, or the default raised to what the precision needs."""
    needed = NEEDED_TARGET.get((request.precision, compression), 15)
    asked = request.minimum_deployment_target
    if asked is None:
        return max(needed, int(DEFAULT_TARGET.removeprefix("iOS")))
    version = int(asked.removeprefix("iOS"))
    if version < needed:
        raise UnsupportedError(
            f"coreml at {request.precision} ({compression}) for {asked}",
            reason=f"ML programs hold it from iOS{needed} on",
            instead=f"minimum_deployment_target: iOS{needed}, or fp16",
        )
    return version


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


def palettize(coremltools: Any, model: Any, program: ExportedProgram, *, bits: int) -> Any:
    """Hold the weights that ``program`` quantized as indices into a table of values.

    Four bits take a table a channel, which holds the fifteen values of a ``w4`` program exactly; eight bits take one
    table a tensor (k-means), which does not hold all values of a ``w8`` program.

    Args:
        coremltools: The library.
        model: Converted with float weights.
        program: Says which weights are quantized; the others stay as they are.
        bits: 4 or 8.
    """
    optimize = coremltools.optimize.coreml
    if bits == 4:
        settings = optimize.OpPalettizerConfig(
            mode="custom",
            lut_function=table_of_values,
            weight_threshold=_LEAST_PALETTIZED,
            granularity="per_grouped_channel",
            group_size=1,
        )
    else:
        settings = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=_LEAST_PALETTIZED)
    config = optimize.OptimizationConfig(global_config=settings)
    edit = ProgramEdit.of(program)
    quantized = {weight.name for weight in folded_weights(edit)}
    for name in edit.tensors.keys() - quantized:
        for suffix in ("", "_to_fp16"):
            config.set_op_name(name.replace(".", "_") + suffix, None)
    return optimize.palettize_weights(model, config)


def table_of_values(weights: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    """Hold at most 16 distinct weights exactly: a table, and the place of each weight in it.

    Exact by construction, which k-means with 16 means, started at random, is not bound to be.

    Args:
        weights: One channel of a ``w4`` program: at most 15 values.

    Returns:
        The table ``[16]`` in the weights' dtype, and flat indices.

    Example:
        >>> table, places = table_of_values(np.array([0.5, -0.5, 0.5], np.float32))
        >>> table[places].tolist()
        [0.5, -0.5, 0.5]
    """
    values, places = np.unique(weights, return_inverse=True)
    table = np.zeros(16, weights.dtype)
    table[: len(values)] = values
    return table, places.reshape(-1).astype(np.uint8)


def _notes(request: ExportRequest, steps: int, exact: bool, palette: bool) -> list[str]:
    notes = []
    if steps:
        notes.append(f"recurrent layers are unrolled over {steps} steps")
    dtypes = {spec.dtype for spec in request.program.inputs}
    if "int64" in dtypes:
        notes.append("int64 inputs are int32")
    if "bool" in dtypes:
        notes.append("boolean inputs are float32 (0 or 1)")
    if request.precision == "int8":
        notes.append(
            "computes in float32 between integer operations: float16 would round a scale by more than a thousandth"
            if exact
            else "computes in float16 between integer operations; scales are rounded by less than a thousandth; "
            "quantized inputs are rounded to their grid in float32 first"
        )
    if palette and request.precision == "w8":
        notes.append("a table of 256 values a tensor does not hold the program's per-channel grid exactly")
    return notes
