"""From a trained module to a program: quantized as asked, saved with the samples that verify it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.fx import GraphModule

from edgekit.data.dataset import Array, Dataset
from edgekit.data.sources import load_dataset
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
from edgekit.frameworks.pytorch.capture import export_program, record
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.cluster import Clusterer
from edgekit.frameworks.pytorch.describe import input_names, layout_of, run_outputs, tensor_spec
from edgekit.frameworks.pytorch.load import Source, load_source
from edgekit.frameworks.pytorch.prune import MaskKeeper, zero_masks
from edgekit.frameworks.pytorch.qat import train_prepared
from edgekit.frameworks.pytorch.quantize import calibrate, convert, prepare, skipped
from edgekit.frameworks.pytorch.samples import (
    Samples,
    as_samples,
    calibration_samples,
    has_free_batch,
    reference_samples,
    run_all,
)
from edgekit.frameworks.pytorch.train import load_distiller
from edgekit.frameworks.requests import ProgramRequest
from edgekit.program.analysis import LAYER_ERROR_SAMPLES, layer_errors, program_sparsity, weight_histograms
from edgekit.program.rewrites import expand, rewrite
from edgekit.program.serialize import save_program
from edgekit.recipe.schema import DataSection, QuantizeRule, TrainSection
from edgekit.records import Precision, Program, SkippedLayer

DEFAULT_CALIBRATION = DataSection.model_fields["calibration_samples"].default
_CALIBRATED: tuple[Precision, ...] = ("int8",)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A graph of one precision and what it left in floating point."""

    graph: GraphModule
    skipped: tuple[SkippedLayer, ...]


def to_program(request: ProgramRequest) -> Program:
    """Turn a trained model into a program of one precision.

    Writes into ``request.output_dir``: ``program.pt2``, ``reference.npz``, ``calibration.npz`` (with data),
    ``layer_errors.json`` (quantized programs), ``weight_histograms.json``.

    Raises:
        ModelError: The model cannot be loaded or exported; control flow that depends on data is named.
        DataError: The data do not fit the model, or int8 has no data to calibrate with.
        RecipeError: A skip rule matches no layer.
    """
    source = load_source(request.model, weights=request.weights)
    dataset = None if request.data is None else load_dataset(request.data)
    reference = reference_samples(source, dataset, request.verify.samples)
    example = reference.first(1)
    outputs = run_outputs(source.module, example.inputs)
    recorded = expand(rewrite(record(source.module, example.inputs)))
    batch = EVALUATION_BATCH if has_free_batch(recorded) else 1
    drawn = draw_calibration(request, dataset, _CALIBRATED)
    calibration = None if drawn is None or dataset is None else as_samples(drawn, dataset)
    quantized = _quantize(request, source, dataset, example, calibration)
    graph = recorded if quantized is None else quantized.graph
    program = export_program(graph, example.inputs, dynamic_batch=request.dynamic_batch)

    request.output_dir.mkdir(parents=True, exist_ok=True)
    save_program(program, request.output_dir / "program.pt2")
    report_progress("verify")
    # An exported program refuses every batch size but its own, also where its operations would take any.
    fixed = isinstance(source.module, GraphModule) and not has_free_batch(source.module)
    of_source = run_all(source.module, reference, 1 if fixed else batch)
    of_program = run_all(graph, reference, batch)
    write_reference(request.output_dir / "reference.npz", _arrays(reference), reference.labels, of_source, of_program)
    if calibration is not None:
        write_calibration(request.output_dir / "calibration.npz", _arrays(calibration))
    _write_analysis(request.output_dir, recorded, quantized, reference)
    names = input_names(source.module, dataset, len(example.inputs))
    classify = dataset is not None and dataset.task == "classification"
    labels = reference.labels if classify else None
    return Program(
        path=request.output_dir / "program.pt2",
        precision=request.precision,
        dynamic_batch=request.dynamic_batch,
        inputs=tuple(
            tensor_spec(name, tensor, dynamic_batch=request.dynamic_batch, layout=layout_of(tensor, dataset))
            for name, tensor in zip(names, example.inputs, strict=True)
        ),
        outputs=tuple(tensor_spec(name, tensor, dynamic_batch=request.dynamic_batch) for name, tensor in outputs),
        reference=request.output_dir / "reference.npz",
        calibration=None if calibration is None else request.output_dir / "calibration.npz",
        output_steps=output_steps(program),
        task="classification" if labels is not None else None,
        source_accuracy=top1_accuracy(of_source[0], labels),
        program_accuracy=top1_accuracy(of_program[0], labels),
        skipped=() if quantized is None else quantized.skipped,
        sparsity=program_sparsity(program),
        warnings=tuple(calibration_warnings(request, drawn, dataset, _CALIBRATED)),
    )


def _quantize(
    request: ProgramRequest, source: Source, dataset: Dataset | None, example: Samples, calibration: Samples | None
) -> Quantized | None:
    if request.precision in ("fp32", "fp16", "int16x8"):
        return None
    rule = request.quantize or QuantizeRule(precision=request.precision)
    qat = rule.mode == "qat"
    report_progress("quantize")
    prepared = prepare(source.module, example.inputs, rule, qat=qat)
    if qat:
        _train(request, rule, prepared, source.module, require_calibration(dataset, "quantization-aware training"))
    else:
        batch = EVALUATION_BATCH if has_free_batch(prepared) else 1
        # Without calibration data (dynamic, weight-only) one run lets the observers of weights see them.
        calibrate(prepared, example.batches(1) if calibration is None else calibration.batches(batch))
    converted = convert(prepared)
    return Quantized(converted, skipped(converted))


def _train(
    request: ProgramRequest, rule: QuantizeRule, prepared: GraphModule, module: nn.Module, dataset: Dataset
) -> None:
    data = request.data
    train_prepared(
        prepared,
        dataset,
        rule,
        request.train or TrainSection(),
        first=calibration_samples(dataset, data.calibration_samples if data else DEFAULT_CALIBRATION, 0),
        keeper=None if request.prune is None else MaskKeeper(prepared, zero_masks(module, request.prune)),
        clusterer=None if request.cluster is None else Clusterer.keep(prepared, module, request.cluster),
        distiller=None if request.distil is None else load_distiller(request.distil),
        checkpoints=Checkpoints(request.work_dir / f"checkpoints-{request.precision}"),
    )


def _arrays(samples: Samples) -> tuple[Array, ...]:
    return tuple(tensor.numpy() for tensor in samples.inputs)


def _write_analysis(folder: Path, recorded: GraphModule, quantized: Quantized | None, reference: Samples) -> None:
    errors = None
    if quantized is not None:
        count = LAYER_ERROR_SAMPLES if has_free_batch(recorded) else 1
        errors = layer_errors(recorded, quantized.graph, [reference.first(count).inputs])
    write_analysis(folder, weight_histograms(recorded), errors)
