"""Which unit of a chip takes which operation, as text and shares, for the report and for tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.budget.figures import format_figure
from edgekit.records import OperationPlacement, Placement, Unit
from edgekit.units import format_size

UNIT_NAMES: Mapping[Unit, str] = {"cpu": "CPU", "gpu": "GPU", "neural_engine": "Neural Engine"}
ORIGINS = {"predicted": "predicted by published rules", "measured": "measured: Core ML's own plan on the device"}
"""Kind of a placement -> how it is called in a line of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRow:
    """One operation of a placement, as text.

    Attributes:
        operation: What it is about.
        units: Those that could take it.
        preferred: The one that is expected to.
        why_not: Why others cannot, with the numbers of the sources; empty: all can.
        answered: The unit that Core ML itself names; empty: it was not asked, or says nothing of this operation.
        differs: Whether Core ML names another one.
    """

    operation: OperationPlacement
    units: str
    preferred: str
    why_not: str
    answered: str = ""
    differs: bool = False


def placement_rows(placement: Placement, answered: Placement | None = None) -> tuple[PlacementRow, ...]:
    """Return one row an operation.

    Args:
        placement: Shown.
        answered: Core ML's own plan of the same artifact, to stand beside it; operations are recognised by name.
    """
    numbers = {source: number for number, source in enumerate(placement_sources(placement), 1)}
    by_name = {item.name: item for item in answered.operations} if answered is not None else {}
    return tuple(_row(item, numbers, by_name.get(item.name)) for item in placement.operations)


def refused_rows(placement: Placement) -> tuple[PlacementRow, ...]:
    """Return the rows of the operations that some unit cannot take."""
    return tuple(row for row in placement_rows(placement) if row.why_not)


def _row(item: OperationPlacement, numbers: Mapping[str, int], answered: OperationPlacement | None) -> PlacementRow:
    cited = ", ".join(str(numbers[source]) for source in item.sources)
    reasons = "; ".join(dict.fromkeys(item.reasons.values()))  # one rule may speak for two units
    return PlacementRow(
        operation=item,
        units=", ".join(UNIT_NAMES[unit] for unit in item.units),
        preferred=UNIT_NAMES[item.preferred],
        why_not=f"{reasons} [{cited}]" if reasons and cited else reasons,
        answered=UNIT_NAMES[answered.preferred] if answered is not None else "",
        differs=answered is not None and answered.preferred != item.preferred,
    )


def placement_sources(placement: Placement) -> tuple[str, ...]:
    """Return every source that a placement rests on, each once, in the order in which they are cited."""
    return tuple(dict.fromkeys(source for item in placement.operations for source in item.sources))


def placement_bars(placement: Placement) -> tuple[tuple[str, float, str], ...]:
    """Return for each unit what it is expected to take: name, share (0 to 1), and text with what it could take."""
    return tuple((UNIT_NAMES[unit], share, _share_text(placement, unit)) for unit, share in placement.shares.items())


def _share_text(placement: Placement, unit: Unit) -> str:
    taken = format_figure(placement.shares[unit], "share")
    possible = placement.takes.get(unit)
    return taken if possible is None else f"{taken}, could take {format_figure(possible, 'share')}"


def placement_lines(placement: Placement) -> tuple[str, ...]:
    """Say a placement in words: where it is from, what each unit takes, how often work changes hands."""
    counted = "multiply-accumulates" if any(item.macs for item in placement.operations) else "operations"
    shares = "; ".join(f"{name} {text}" for name, _, text in placement_bars(placement))
    return (
        f"{ORIGINS[placement.kind]}, {placement.chip or 'no chip in particular'}, units {placement.compute_units}",
        f"of the {counted}: {shares}",
        handover_text(placement),
    )


def handover_text(placement: Placement) -> str:
    """Say how many segments there are, and what they hand to each other."""
    if placement.segments <= 1:
        return "one segment: nothing changes hands"
    size = f" ({format_size(placement.transfer_bytes)})" if placement.transfer_bytes else ""
    values = "value" if placement.transfers == 1 else "values"
    return f"{placement.segments} segments, which hand {placement.transfers} {values}{size} to each other"


def agreement_text(placement: Placement, answered: Placement) -> str:
    """Say how many operations Core ML itself puts where the prediction has them."""
    rows = [row for row in placement_rows(placement, answered) if row.answered]
    same = sum(not row.differs for row in rows)
    return f"Core ML's own plan agrees with the prediction on {same} of {len(rows)} operations"
