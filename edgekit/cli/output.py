"""How commands speak: tables or one JSON document on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_json(document: object) -> None:
    """Print one JSON document (records and their containers included) on standard output."""
    from edgekit.records import to_json

    sys.stdout.write(json.dumps(to_json(document), indent=2, sort_keys=True, allow_nan=False) + "\n")


def print_table(*renderables: RenderableType) -> None:
    """Print tables and lines for people on standard output, as wide as the terminal, or 160 columns in a pipe."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)
    for renderable in renderables:
        console.print(renderable)


def say(message: str) -> None:
    """Write a line of diagnostics on standard error."""
    sys.stderr.write(message + "\n")
