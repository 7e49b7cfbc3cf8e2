"""Run a plan under a progress display and print what came out: what ``build`` and ``convert`` share."""

from __future__ import annotations

from pathlib import Path

import typer

from edgekit.cli.output import print_json, print_table, say
from edgekit.cli.progress import BuildProgress
from edgekit.pipeline.plan import Plan
from edgekit.pipeline.run import build
from edgekit.pipeline.stages import default_jobs
from edgekit.report.tables import summary_table, verdict_table


def build_and_print(plan: Plan, output: Path | None, *, jobs: int | None, force: bool, json: bool) -> None:
    """Build, print the manifest or tables, and leave with the exit code that the outcome deserves.

    Raises:
        typer.Exit: Always when the code is not 0.
        EdgekitError: As ``pipeline.run.build``.
    """
    folder = output or Path("builds") / plan.recipe.name
    for warning in plan.warnings:
        say(f"note: {warning}")
    with BuildProgress() as progress:
        outcome = build(plan, folder, jobs=jobs or default_jobs(), force=force, observer=progress)
    manifest = outcome.manifest
    if json:
        print_json(manifest)
    else:
        print_table(summary_table(manifest))
        verdicts = [verdict for report in manifest.artifacts for verdict in report.verdicts]
        if verdicts:
            print_table(verdict_table(verdicts))
        print_table(f"manifest: {folder / 'manifest.json'}   report: {folder / 'report.html'}")
    for warning in manifest.warnings[len(plan.warnings) :]:
        say(f"warning: {warning}")
    for report in manifest.artifacts:
        for error in filter(None, (report.error, *report.other_errors)):
            see = f" (log: {folder / error.log})" if error.log else ""
            say(f"error: {report.id}: [{error.stage}] {error.message}{see}")
        if report.error is None and report.parity is not None and report.parity.status == "fail":
            say(f"error: {report.id}: {report.parity.reason}")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)
