"""Tables of a program that ran on an emulated target: what it executed, by class and by function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgekit.budget.figures import format_figure, format_with_band
from edgekit.report.tables.cells import frame, row
from edgekit.units import format_count, format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgekit.records import InstructionCounts
    from edgekit.targets.emulated.program import EmulatedProgram, FunctionCount


def program_table(program: EmulatedProgram) -> RenderableType:
    """One row: the region's instructions, and its time where a model gave one."""
    numbers = ("instructions", "load", "threads", "cycles", "est. time")
    table = frame(("target", "core", "region", *numbers, "model"), numbers)
    time = program.latency_ms
    row(
        table,
        program.target,
        program.core,
        program.region,
        format_count(program.instructions),
        format_count(program.load_instructions) if program.load_instructions else "–",
        str(program.threads),
        "–" if program.cycles is None else format_count(round(program.cycles)),
        "–" if time is None else format_with_band(time.median, "ms", (time.low, time.high)),
        program.model,
    )
    return table


def group_table(counts: InstructionCounts) -> RenderableType:
    """One row a class of instruction, the largest first, and what loads and stores moved."""
    table = frame(("class", "instructions", "share", "bytes"), ("instructions", "share", "bytes"))
    moved = {"load": counts.load_bytes, "store": counts.store_bytes}
    whole = counts.total or 1
    for group, count in sorted(counts.groups.items(), key=lambda item: (-item[1], item[0])):
        size = format_size(moved[group]) if group in moved else ""
        row(table, group.replace("_", " "), format_count(count), format_figure(count / whole, "share"), size)
    return table


def function_table(functions: Iterable[FunctionCount]) -> RenderableType:
    """One row a function, the largest first."""
    table = frame(("function", "library", "instructions", "share"), ("instructions", "share"))
    for function in functions:
        row(
            table,
            function.name,
            function.library or "–",
            format_count(function.instructions),
            format_figure(function.share, "share"),
        )
    return table
