"""Tables of a placement: which unit of a chip takes which operation, and why others cannot."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.records import Placement
from edgekit.report.placement import agreement_text, placement_lines, placement_rows, placement_sources
from edgekit.report.tables.cells import frame, row

_STYLES = {"Neural Engine": "green", "GPU": "cyan", "CPU": ""}


def placement_table(placement: Placement, answered: Placement | None = None) -> RenderableType:
    """One row an operation, in execution order, then what follows from it in words, then the sources.

    Args:
        placement: Shown.
        answered: Core ML's own plan of the same artifact: a column beside it.
    """
    numbers = ("#", "MACs", "segment")
    plan = ("Core ML says",) if answered is not None else ()
    columns = ("#", "operation", "type", "computes in", "MACs", "runs on", *plan, "segment", "why not elsewhere")
    table = frame(columns, numbers)
    for item in placement_rows(placement, answered):
        operation = item.operation
        said = (Text(item.answered or "–", style="bold yellow" if item.differs else ""),) if answered else ()
        row(
            table,
            str(operation.index),
            operation.name,
            operation.type,
            operation.compute_dtype if operation.compute_dtype != "none" else "",
            f"{operation.macs:,}" if operation.macs else "",
            Text(item.preferred, style=_STYLES[item.preferred]),
            *said,
            str(operation.segment + 1),
            item.why_not,
        )
    lines = [*placement_lines(placement)]
    if answered is not None:
        lines += [agreement_text(placement, answered), *placement_lines(answered)]
    lines += [f"note: {note}" for note in placement.notes]
    lines += [f"note: {note}" for note in (answered.notes if answered is not None else ())]
    lines += [f"[{number}] {source}" for number, source in enumerate(placement_sources(placement), 1)]
    return Group(table, *(Text(line) for line in lines))
