"""A table of an artifact beside its program, operation by operation."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.budget.figures import format_figure
from edgekit.report.tables.cells import frame, row
from edgekit.verify.operators import OperatorComparison, OperatorDistance


def operator_distance_table(comparison: OperatorComparison) -> RenderableType:
    """One row a floating-point result, in the order of execution; where most is lost is marked and said below."""
    numbers = ("SQNR", "lost here", "max error")
    table = frame(("operation", "type", "shape", "beside", "layer", *numbers), numbers)
    for item in comparison.operators:
        steepest = item.name == comparison.steepest
        row(
            table,
            item.name,
            item.type,
            "×".join(map(str, item.shape)),
            _beside(item),
            item.layer or "",
            _sqnr(item),
            "" if item.lost_db is None or item.lost_db < 0.05 else format_figure(item.lost_db, "dB"),
            "" if item.max_abs_error is None else f"{item.max_abs_error:.3g}",
            style="bold yellow" if steepest else None,
        )
    return Group(table, Text(_summary(comparison)))


def _beside(item: OperatorDistance) -> str:
    if item.beside is None:
        return "–"
    how = f" (by {item.matched})" if item.matched in ("place", "guess") else ""
    return f"{item.beside}{how}" if item.factor == 1.0 else f"{item.beside}{how} × {item.factor:.4g}"


def _sqnr(item: OperatorDistance) -> str | Text:
    if item.overflows:
        return Text("overflows", style="bold red")
    if item.sqnr_db is None:
        return ""
    return "identical" if item.max_abs_error == 0 else format_figure(item.sqnr_db, "dB")


def _summary(comparison: OperatorComparison) -> str:
    alone = sum(item.beside is None for item in comparison.operators)
    samples = f"{comparison.samples} sample{'' if comparison.samples == 1 else 's'}"
    held = f"{len(comparison.operators) - alone} of {len(comparison.operators)} results compared on {samples}"
    worst = next((item for item in comparison.operators if item.name == comparison.steepest), None)
    if worst is None:
        return f"{held}; no operation loses 6 dB or more by itself"
    if worst.overflows:
        return f"{held}; {worst.name} ({worst.type}) is the first to hold infinity or NaN"
    return f"{held}; {worst.name} ({worst.type}) loses most: {format_figure(worst.lost_db, 'dB')}"
