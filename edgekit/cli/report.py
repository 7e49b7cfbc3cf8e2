"""``edgekit report``: the HTML report of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import BuildDir
from edgekit.cli.output import say

NAME = "report"


def run(
    build_dir: BuildDir,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File (default: BUILD_DIR/report.html).")
    ] = None,
    compare_with: Annotated[Path | None, typer.Option("--compare-with", help="Show another build beside it.")] = None,
) -> None:
    """Write the report of a build anew, as one self-contained HTML file."""
    from edgekit.report.html import render_report
    from edgekit.store.atomic import write_text
    from edgekit.store.manifest import read_manifest

    manifest = read_manifest(build_dir)
    other = read_manifest(compare_with) if compare_with is not None else None
    place = output or (build_dir if build_dir.is_dir() else build_dir.parent) / "report.html"
    write_text(place, render_report(manifest, compare_with=other))
    say(f"wrote {place}")
