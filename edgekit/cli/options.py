"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Exports side by side (default: one a core).")]
Force = Annotated[bool, typer.Option("--force", help="Do the work anew instead of taking it from the cache.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write (default: builds/<name>).")]
BuildDir = Annotated[Path, typer.Argument(help="A build folder.", show_default=False)]
NumRuns = Annotated[int, typer.Option("--num-runs", min=1, help="Timed inferences.")]
WarmupRuns = Annotated[int, typer.Option("--warmup-runs", min=0, help="Untimed inferences before them.")]
NumThreads = Annotated[int, typer.Option("--num-threads", min=1, help="Threads of the runtime.")]
