"""The table of operations, generated from the code, against coremltools' own registry."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from edgekit.formats.coreml.evaluator.check import NOT_EXECUTED
from edgekit.formats.coreml.evaluator.registry import known_operations
from edgekit.formats.light_imports import import_coremltools

NOT_IN_FILES = {"_const_symbolic": "it exists while coremltools converts, and is never written"}
"""Registered operations that no file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredOperation:
    """One operation of coremltools' registry.

    Attributes:
        name: In programs.
        family: The file that executes it; None: it is not executed.
        since: The first iOS that has it; 0 where that is not known.
        note: The first sentence of its docstring, or why it is not executed.
    """

    name: str
    family: str | None
    since: int
    note: str


def registered_operations() -> tuple[str, ...]:
    """Return every operation of every operation set that the installed coremltools has."""
    import_coremltools()
    from coremltools.converters.mil.mil.ops import defs
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    del defs  # importing it fills the registry
    return tuple(sorted(SSAOpRegistry.core_ops))


def coverage() -> tuple[CoveredOperation, ...]:
    """Return one row an operation of coremltools' registry, in the order of names."""
    return tuple(_row(name) for name in registered_operations())


def _row(name: str) -> CoveredOperation:
    entry = known_operations().get(name)
    if name == "const":
        return CoveredOperation(name=name, family="constants", since=15, note="A value that the file holds.")
    if entry is None:
        note = NOT_EXECUTED.get(name) or NOT_IN_FILES.get(name) or "not executed"
        return CoveredOperation(name=name, family=None, since=0, note=note)
    note = cleandoc(entry.execute.__doc__ or "").splitlines()[0]
    return CoveredOperation(name=name, family=entry.family, since=entry.since, note=note)


def coverage_table() -> str:
    """Return the table as Markdown."""
    rows = coverage()
    executed = sum(row.family is not None for row in rows)
    lines = ["# Operations that the Core ML reference evaluator executes", ""]
    lines += [f"{executed} of the {len(rows)} operations in coremltools' registry are executed.", ""]
    lines += ["| operation | since | executed by | what it does |", "| --- | --- | --- | --- |"]
    for row in rows:
        since = f"iOS{row.since}" if row.since else "–"
        lines.append(f"| `{row.name}` | {since} | {row.family or '–'} | {row.note.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


TABLE = "OPERATIONS.md"
"""The table as a file beside this one; ``python -m edgekit.formats.coreml.evaluator.coverage`` writes it."""


if __name__ == "__main__":
    Path(__file__).with_name(TABLE).write_text(coverage_table(), encoding="utf-8")
