"""``edgekit inspect``: what an artifact holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Json

NAME = "inspect"


def run(
    artifact: Annotated[Path, typer.Argument(help="A .tflite, .pte, .mlpackage or .onnx.", show_default=False)],
    json: Json = False,
) -> None:
    """Show an artifact's operators, dtypes, delegate coverage, size by layer, and whether it is truly quantized."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.pipeline.inspect import inspect_artifact
    from edgekit.report.tables import audit_table, operator_table

    report = inspect_artifact(artifact)
    if json:
        print_json(report)
    else:
        print_table(operator_table(report.operators), audit_table(report.audit, report.coverage))
