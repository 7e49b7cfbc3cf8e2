"""``edgekit verify``: run a build's comparisons again."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import BuildDir, ComputeChoice, Jobs, Json

NAME = "verify"


def run(
    build_dir: BuildDir,
    compute: Annotated[
        ComputeChoice | None,
        typer.Option(
            "--compute",
            help="Core ML artifacts only, in the reference evaluator: round to float16 where they declare it, after "
            "every operation, or never.",
            show_default="every artifact on its runtime",
        ),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Run every artifact of a build again on its runtime and compare it anew; exit 1 when one differs.

    With `--compute fp16`, fp32 artifacts show what half precision would cost them; with `fp32`, fp16 ones what it does.
    """
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.pipeline.stages import default_jobs
    from edgekit.pipeline.verify import verify_build
    from edgekit.report.tables import parity_table

    found = verify_build(build_dir, jobs=jobs or default_jobs(), compute=compute.value if compute is not None else None)
    if json:
        print_json(found)
    else:
        print_table(parity_table(found.parities))
    for item in found.parities:
        if item.parity.status == "fail":
            say(f"error: {item.artifact}: {item.parity.reason}")
    if not found.passed:
        raise typer.Exit(1)
