"""``edgekit check``: budgets and regressions, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import BuildDir, Json

NAME = "check"


def run(
    build_dir: BuildDir,
    budgets: Annotated[Path | None, typer.Option("--budgets", help="A budgets file, instead of the recipe's.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="An earlier build or its manifest; falling behind it is a failure."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a Markdown summary here.")] = None,
    json: Json = False,
) -> None:
    """Hold a build against budgets and an earlier build; exit 1 when a limit is broken."""
    from edgekit.budget.check import check
    from edgekit.budget.junit import junit_xml
    from edgekit.budget.load import load_budgets
    from edgekit.budget.markdown import markdown_summary
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.report.tables import verdict_table
    from edgekit.store.atomic import write_text
    from edgekit.store.manifest import read_manifest

    limits = load_budgets(budgets) if budgets is not None else None
    report = check(
        read_manifest(build_dir),
        limits.budgets if limits is not None else None,
        read_manifest(baseline) if baseline is not None else None,
        limits.regression if limits is not None else None,
    )
    if junit is not None:
        write_text(junit, junit_xml(report))
    if markdown is not None:
        write_text(markdown, markdown_summary(report))
    if json:
        print_json(report)
    else:
        print_table(verdict_table(report.verdicts))
    for note in report.notes:
        say(f"note: {note}")
    if not report.passed:
        raise typer.Exit(1)
