"""``edgekit bundle``: a folder to carry to a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import BuildDir, Json

NAME = "bundle"


def run(
    build_dir: BuildDir,
    platform: Annotated[str, typer.Option("--for", help="The device's system: ios.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write (default: <build>-ios beside the build).")
    ] = None,
    json: Json = False,
) -> None:
    """Write a Swift package with the build's Core ML artifacts: a benchmark app and tests with golden outputs."""
    from edgekit.cli.output import print_json, say
    from edgekit.pipeline.bundle import bundle_build
    from edgekit.units import format_size

    found = bundle_build(build_dir, platform, output)
    if json:
        print_json(found)
        return
    say(f"wrote {found.path} ({format_size(found.size_bytes)}): {', '.join(one.id for one in found.artifacts)}")
    for note in found.notes:
        say(f"note: {note}")
    say(f"how to run it: {found.path / 'README.md'}")
