"""From a trained Keras model to a program: converted by TensorFlow, read, saved with the samples that verify it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.data.dataset import Array, Dataset
from edgekit.data.sources import load_dataset
from edgekit.frameworks.keras.convert import Options, convert
from edgekit.frameworks.keras.converted import Converted
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.frameworks.keras.file_layers import layers_by_label, rename_layers
from edgekit.frameworks.keras.layers import source_layers
from edgekit.frameworks.keras.load import Source, load_source, load_weights
from edgekit.frameworks.keras.quantize import train_quantized
from edgekit.frameworks.keras.runner import input_specs, run_source
from edgekit.frameworks.keras.samples import Samples, reference_samples, run_program
from edgekit.frameworks.keras.serving import Interface, interface_of
from edgekit.frameworks.programs import (
    EVALUATION_BATCH,
    calibration_warnings,
    draw_calibration,
    output_steps,
    report_progress,
    require_calibration,
    top1_accuracy,
    write_analysis,
    write_calibration,
    write_reference,
)
from edgekit.frameworks.requests import ProgramRequest
from edgekit.program.analysis import LAYER_ERROR_SAMPLES, layer_errors, program_sparsity, weight_histograms
from edgekit.program.serialize import save_program
from edgekit.program.tflite.read import ReadProgram, read_program
from edgekit.recipe.layers import select_layers
from edgekit.recipe.schema import QuantizeRule
from edgekit.records import Precision, Program, SkippedLayer, TensorSpec

_CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")
_FLOAT: tuple[Precision, ...] = ("fp32", "fp16")
_UNWEIGHTED = ("AVERAGE_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "MEAN", "CUMSUM")
"""Operators that a program computes with constants of its own, which are no weights of the model."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What the steps of one program share."""

    request: ProgramRequest
    source: Source
    interface: Interface

    def write(self, name: str, converted: Converted) -> tuple[Path, ReadProgram]:
        """Write a converted file and read it, its operations named after the model's layers."""
        path = self.request.output_dir / name
        path.write_bytes(converted.content)
        program = read_program(path, dynamic_batch=self.request.dynamic_batch)
        if self.source.library == "tflite":
            return path, program  # the file is the source: its operators have no other names
        layers = layers_by_label(converted.content, self.source)
        for graph in (program.graph, program.program.graph_module):
            rename_layers(graph, layers)
        return path, program


def to_program(request: ProgramRequest) -> Program:
    """Turn a trained model into a program of one precision.

    Writes into ``request.output_dir``: ``program.tflite`` (by TensorFlow's converter), ``program.pt2`` (what was read
    from it), ``reference.npz``, ``calibration.npz`` (with data), ``layer_errors.json`` (quantized programs),
    ``weight_histograms.json``.

    Raises:
        ModelError: The model cannot be loaded or recorded.
        DataError: The data do not fit the model, or int8 has no data to calibrate with.
        RecipeError: A skip rule matches no layer.
        UnsupportedError: An operation has no TFLite kernel, or no translation into a program; it is named.
        ToolError: TensorFlow's converter failed.
    """
    source = load_source(request.model)
    if source.library in ("keras", "tf_keras"):
        load_weights(source, request.weights)
    dataset = None if request.data is None else load_dataset(request.data)
    reference = reference_samples(source, dataset, request.verify.samples)
    drawn = draw_calibration(request, dataset, () if source.library == "tflite" else _CALIBRATED)
    calibration = None if drawn is None or dataset is None else _fed(drawn.inputs, source, dataset)
    request.output_dir.mkdir(parents=True, exist_ok=True)
    work = _Work(request, source, interface_of(source))

    converted = _convert(work, dataset, calibration)
    origin, read = work.write("program.tflite", converted)
    save_program(read.program, request.output_dir / "program.pt2")
    report_progress("verify")
    of_source = run_source(source, reference.inputs)
    of_program = run_program(read.graph, reference, EVALUATION_BATCH if request.dynamic_batch else 1)
    write_reference(request.output_dir / "reference.npz", reference.inputs, reference.labels, of_source, of_program)
    if calibration is not None:
        write_calibration(request.output_dir / "calibration.npz", calibration)
    _analyse(work, read, reference)
    classify = dataset is not None and dataset.task == "classification"
    labels = reference.labels if classify else None
    return Program(
        path=request.output_dir / "program.pt2",
        precision=request.precision,
        dynamic_batch=request.dynamic_batch,
        inputs=tuple(_input(spec, dataset) for spec in read.inputs),
        outputs=read.outputs,
        reference=request.output_dir / "reference.npz",
        calibration=None if calibration is None else request.output_dir / "calibration.npz",
        output_steps=output_steps(read.program),
        task="classification" if labels is not None else None,
        source_accuracy=top1_accuracy(of_source[0], labels),
        program_accuracy=top1_accuracy(of_program[0], labels),
        skipped=converted.skipped,
        sparsity=program_sparsity(read.program),
        warnings=(
            *source.notes, *converted.notes, *read.notes, *calibration_warnings(request, drawn, dataset, _CALIBRATED)
        ),
        origin=origin,
    )  # fmt: skip


def _fed(inputs: Sequence[Array], source: Source, dataset: Dataset) -> tuple[Array, ...]:
    return as_arrays(inputs, dataset.layout, input_specs(source))


def _input(spec: TensorSpec, dataset: Dataset | None) -> TensorSpec:
    image = dataset is not None and dataset.layout is not None and len(spec.shape) == 4
    return replace(spec, layout="NHWC" if image else None)


def _convert(work: _Work, dataset: Dataset | None, calibration: tuple[Array, ...] | None) -> Converted:
    """Convert to the asked precision, training on with fake quantization where the rule says so."""
    request = work.request
    if request.precision not in _FLOAT:
        report_progress("quantize")
    rule = request.quantize or QuantizeRule(precision=_rule_precision(request.precision))
    picked = select_layers(source_layers(work.source), rule.skip, "compress.quantize.skip")
    options = Options(
        calibration=calibration,
        trained=request.precision == "int8" and rule.mode == "qat",
        per_channel=rule.per_channel,
        picked=picked,
        dynamic_batch=request.dynamic_batch,
    )
    if not options.trained:
        return convert(work.source, request.precision, request.work_dir, options, interface=work.interface)
    dataset = require_calibration(dataset, "quantization-aware training")
    model, left = train_quantized(request, work.source, dataset)
    trained = replace(work.source, model=model, library="tf_keras")
    converted = convert(trained, request.precision, request.work_dir, options, interface=work.interface)
    return replace(converted, skipped=_explained(converted.skipped, left))


def _rule_precision(precision: Precision) -> Precision:
    return "int8" if precision in _FLOAT else precision


def _explained(found: Sequence[SkippedLayer], left: Sequence[SkippedLayer]) -> tuple[SkippedLayer, ...]:
    """Say why training left layers alone, which the file it led to cannot tell."""
    reasons = {layer.name: layer for layer in left}
    named = {layer.name for layer in found}
    return (
        *(replace(layer, reason=reasons[layer.name].reason) if layer.name in reasons else layer for layer in found),
        *(layer for layer in left if layer.name not in named),
    )


def _analyse(work: _Work, read: ReadProgram, reference: Samples) -> None:
    """Compare with the float program, which is made on the side where it is another."""
    request = work.request
    float_program = read.graph
    if request.precision not in _FLOAT and work.source.library != "tflite":
        plain = Options(dynamic_batch=request.dynamic_batch)
        converted = convert(work.source, "fp32", request.work_dir, plain, interface=work.interface)
        float_program = work.write("float.tflite", converted)[1].graph
        (request.output_dir / "float.tflite").unlink()
    errors = None
    if float_program is not read.graph:
        few = reference.first(LAYER_ERROR_SAMPLES)
        errors = layer_errors(float_program, read.graph, list(few.tensors(1)), without=_UNWEIGHTED)
    elif request.precision not in _FLOAT:
        errors = ()
    write_analysis(request.output_dir, weight_histograms(float_program, without=_UNWEIGHTED), errors)
