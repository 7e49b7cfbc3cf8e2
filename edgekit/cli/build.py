"""``edgekit build``: the whole journey from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Force, Jobs, Json, Output

NAME = "build"


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    output: Output = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: train.epochs=1, export.0.precision=int8.")
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the plan; do no work.")] = False,
    force: Force = False,
) -> None:
    """Build what a recipe says: train, compress, export, run, verify, profile, judge.

    Exit codes: 0 all good, 1 a check failed, 2 the input is wrong, 3 a tool failed, 130 interrupted.
    """
    from edgekit.pipeline.devices import check_usable
    from edgekit.pipeline.inputs import check_inputs
    from edgekit.pipeline.plan import make_plan
    from edgekit.recipe import load_recipe

    plan = make_plan(load_recipe(recipe, changes or ()))
    check_inputs(plan.recipe)
    if dry_run:
        check_usable(plan.devices)
        from edgekit.cli.output import print_json, print_table
        from edgekit.report.tables import plan_table

        if json:
            print_json(plan)
        else:
            devices = {item.id: [device.name for device in plan.devices_of(item)] for item in plan.artifacts}
            print_table(plan_table(plan.artifacts, devices), *plan.warnings)
        return
    from edgekit.cli.journey import build_and_print

    build_and_print(plan, output, jobs=jobs, force=force, json=json)
