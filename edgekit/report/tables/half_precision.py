"""A table of what half precision does to an artifact."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.records import HalfPrecision
from edgekit.report.half_precision import HALF_PRECISION_COLUMNS, half_precision_lines, half_precision_row
from edgekit.report.tables.cells import frame, row


def half_precision_table(found: HalfPrecision) -> RenderableType:
    """The operations that lose most by themselves, one row each, then what follows from it in words."""
    table = frame(HALF_PRECISION_COLUMNS, HALF_PRECISION_COLUMNS[3:])
    for item in found.worst:
        row(table, *half_precision_row(item), style="bold red" if item.starts_overflow else None)
    return Group(table, *(Text(line) for line in half_precision_lines(found)))
