"""``edgekit verify``: run a build's comparisons again."""

from __future__ import annotations

import typer

from edgekit.cli.options import BuildDir, Jobs, Json

NAME = "verify"


def run(build_dir: BuildDir, jobs: Jobs = None, json: Json = False) -> None:
    """Run every artifact of a build again on its runtime and compare it anew; exit 1 when one differs."""
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.pipeline.stages import default_jobs
    from edgekit.pipeline.verify import verify_build
    from edgekit.report.tables import parity_table

    found = verify_build(build_dir, jobs=jobs or default_jobs())
    if json:
        print_json(found)
    else:
        print_table(parity_table(found.parities))
    for item in found.parities:
        if item.parity.status == "fail":
            say(f"error: {item.artifact}: {item.parity.reason}")
    if not found.passed:
        raise typer.Exit(1)
