"""``edgekit emulate``: run and count any aarch64 program on an emulated target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Json, ModelChoice

NAME = "emulate"
_FUNCTIONS_SHOWN = 20


def run(
    command: Annotated[
        list[str], typer.Argument(help="After `--`: an aarch64 program and its arguments.", show_default=False)
    ],
    target: Annotated[str, typer.Option("--target", help="An emulated device.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder that the program sees as `/` (such as an unpacked Debian).")
    ] = None,
    library_path: Annotated[
        list[Path] | None, typer.Option("--library-path", help="Folder with shared libraries (repeatable).")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", help="NAME=VALUE for the program (repeatable).")] = None,
    limit_instructions: Annotated[
        int | None, typer.Option("--limit-instructions", min=1, help="Stop the program after so many instructions.")
    ] = None,
    limit_seconds: Annotated[
        float, typer.Option("--limit-seconds", min=1, help="Stop the program after so long.")
    ] = 1800,
    model: Annotated[
        ModelChoice, typer.Option("--model", help="counts: exact, no time; static or trace: estimated time too.")
    ] = ModelChoice.static,
    json: Json = False,
) -> None:
    """Run an aarch64 program behind a phone's processor, and count what it executes, exactly.

    A program that marks its steady part (targets/native/marker.h) is counted there, any other from start to end.
    """
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.pipeline.emulate import emulate
    from edgekit.report.tables.program import function_table, group_table, program_table

    found = emulate(
        command,
        target,
        root=root,
        library_path=library_path or [],
        environment=env or [],
        limit_instructions=limit_instructions,
        limit_seconds=limit_seconds,
        model=model.value,
    )
    if json:
        print_json(found)
        return
    for text in (found.stdout, found.stderr):
        if text.strip():
            say(text.rstrip())
    print_table(program_table(found), group_table(found.counts), function_table(found.functions[:_FUNCTIONS_SHOWN]))
    for note in found.notes:
        say(f"note: {note}")
