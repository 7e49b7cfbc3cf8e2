"""``edgekit convert``: an existing model, no recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Force, Jobs, Json, Output

NAME = "convert"
TRUST = "Load files that execute code: pickles, and Keras files with Lambda layers or custom objects."


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="A .pt2, .onnx, .keras, .h5 or .tflite file, a SavedModel folder, a state dict with --builder, or "
            "package.module:callable.",
            show_default=False,
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="Formats, separated by commas: tflite,executorch,coreml,onnx.")],
    precision: Annotated[str, typer.Option("--precision", help="Precisions, separated by commas.")] = "fp32",
    calibration_data: Annotated[
        Path | None,
        typer.Option("--calibration-data", help="Real samples: a .npz file, a CSV file or an image folder."),
    ] = None,
    builder: Annotated[
        str | None, typer.Option("--builder", help="package.module:callable that builds a state dict's module.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", help="Also profile on this device; may be repeated.")
    ] = None,
    min_sqnr_db: Annotated[float | None, typer.Option(help="What quantized artifacts must keep.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help=TRUST)] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Set a recipe's value: data.args.size=224 for an image folder.")
    ] = None,
    output: Output = None,
    jobs: Jobs = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Convert a model of PyTorch or Keras to other formats, run each artifact and compare it with the model.

    Exit codes: 0 all good, 1 a comparison failed, 2 the input is wrong, 3 a tool failed, 130 interrupted.
    """
    from edgekit.cli.journey import build_and_print
    from edgekit.pipeline.convert import conversion_recipe
    from edgekit.pipeline.inputs import check_inputs
    from edgekit.pipeline.plan import make_plan

    recipe = conversion_recipe(
        model,
        formats=to.split(","),
        precisions=precision.split(","),
        calibration_data=calibration_data,
        builder=builder,
        targets=tuple(target or ()),
        min_sqnr_db=min_sqnr_db,
        trust=trust,
        changes=changes or (),
    )
    plan = make_plan(recipe)
    check_inputs(recipe)
    build_and_print(plan, output, jobs=jobs, force=force, json=json)
