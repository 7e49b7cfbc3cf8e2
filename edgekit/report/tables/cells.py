"""Cells and the frame that all tables share."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

STYLES = {
    "pass": "green",
    "fail": "bold red",
    "error": "bold red",
    "not run": "yellow",
    "better": "green",
    "worse": "bold red",
    "failed in both": "bold red",
    "only before": "yellow",
    "only after": "yellow",
}
"""Style of a standing; the word itself is always printed, so that a pipe or a colour-blind reader loses nothing."""


def frame(columns: Sequence[str], numbers: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Make an empty table.

    Args:
        columns: The headings.
        numbers: Those of them whose cells are right-aligned.
        whole: Those whose cells are never wrapped, however narrow the terminal: what a row is recognised by.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(column),
            justify="right" if column in numbers else "left",
            no_wrap=column in whole,
            overflow="fold",
            header_style="bold",
        )
    return table


def row(table: Table, *cells: str | Text, style: str | None = None) -> None:
    """Add a row; plain strings are taken as they are, never as markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), style=style)


def standing(word: str) -> Text:
    """Return a status in its colour."""
    return Text(word, style=STYLES.get(word, ""))
