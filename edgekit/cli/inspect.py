"""``edgekit inspect``: what an artifact holds."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.options import HalfComputeChoice, Json

if TYPE_CHECKING:
    from edgekit.pipeline.inspect import InspectReport
    from edgekit.records import ComputeUnits

NAME = "inspect"


class UnitsChoice(Enum):
    """Which units Core ML may use, as ``records.ComputeUnits`` has them."""

    value: ComputeUnits
    all = "all"
    cpu_and_neural_engine = "cpuAndNeuralEngine"
    cpu_and_gpu = "cpuAndGPU"
    cpu_only = "cpuOnly"


def run(
    artifact: Annotated[Path, typer.Argument(help="A .tflite, .pte, .mlpackage or .onnx.", show_default=False)],
    placement: Annotated[
        bool, typer.Option("--placement", help="Core ML: which unit takes which operation, and why not another.")
    ] = False,
    compute_units: Annotated[
        UnitsChoice | None,
        typer.Option("--compute-units", help="Placement: the units that may be used.", show_default="all"),
    ] = None,
    chip: Annotated[
        str | None,
        typer.Option("--chip", help="Placement on this chip (m1 … m5, a14 … a18).", show_default="any of them"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Placement: result of a measurement on a Mac, to hold it against.", dir_okay=False),
    ] = None,
    compute: Annotated[
        HalfComputeChoice | None,
        typer.Option("--compute", help="Core ML: find where float16 overflows and what it costs.", show_default=False),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs", help="With --compute: a .npz with input_0, input_1 … (a build's reference).", dir_okay=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show an artifact's operators, dtypes, delegate coverage, size by layer, and whether it is truly quantized.

    Of a Core ML package also where its operations run (`--placement`, predicted; on a Mac also Core ML's own plan), and
    what half precision does to it (`--compute fp16`).
    """
    from dataclasses import replace

    from edgekit.cli.output import print_json
    from edgekit.errors import UserInputError
    from edgekit.pipeline.half_precision import analyse_half_precision
    from edgekit.pipeline.inspect import PlacementQuestion, inspect_artifact

    if inputs is not None and compute is None:
        raise UserInputError("--inputs: expected --compute beside it, which runs the artifact; received --inputs alone")
    asked = placement or compute_units is not None or chip is not None or plan is not None
    units = (compute_units or UnitsChoice.all).value
    question = PlacementQuestion(compute_units=units, chip=chip, measurement=plan) if asked else None
    report = inspect_artifact(artifact, placement=question)
    if compute is not None:
        report = replace(report, half_precision=analyse_half_precision(artifact, inputs, compute.value))
    if json:
        print_json(report)
    else:
        _print(report)


def _print(report: InspectReport) -> None:
    """Print what was asked for; the operators where nothing in particular was."""
    from edgekit.cli.output import print_table
    from edgekit.report.tables import audit_table, operator_table, placement_table

    if report.placement is not None:
        print_table(placement_table(report.placement, report.plan))
    if report.half_precision is not None:
        from edgekit.report.tables import half_precision_table

        print_table(half_precision_table(report.half_precision))
    if report.placement is None and report.half_precision is None:
        print_table(operator_table(report.operators), audit_table(report.audit, report.coverage))
