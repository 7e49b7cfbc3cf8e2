"""Predict which unit of a chip takes which operation of a package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edgekit.formats.coreml.placement.facts import OperationFacts, read_facts
from edgekit.formats.coreml.placement.planner import assign, transfers
from edgekit.formats.coreml.placement.rules import UNITS, Rule, Rules, load_rules
from edgekit.records import ComputeUnits, OperationPlacement, Placement, PlacementRequest, Unit

ALLOWED: Mapping[ComputeUnits, tuple[Unit, ...]] = {
    "all": UNITS,
    "cpuAndNeuralEngine": ("cpu", "neural_engine"),
    "cpuAndGPU": ("cpu", "gpu"),
    "cpuOnly": ("cpu",),
}
"""``MLComputeUnits`` -> which units may be used."""
Refusals = dict[Unit, list[tuple[Rule, str]]]
"""Unit -> the rules by which it refuses an operation, and what each found."""


def place(request: PlacementRequest) -> Placement:
    """Predict the placement of a package.

    Raises:
        ArtifactError: It is missing, truncated or damaged.
        UnsupportedError: It holds no ML program, or one of a newer operation set.
        TargetError: There is no such chip.
    """
    return predict(request.path, request.compute_units, request.chip)


def predict(path: Path, compute_units: ComputeUnits = "all", chip: str | None = None) -> Placement:
    """Predict the placement of a package.

    Args:
        path: The ``.mlpackage`` folder; the function that runs unless another is named is placed.
        compute_units: Which units may be used.
        chip: Such as ``m1`` or ``a17-pro``; None: what any known chip refuses counts as refused.

    Raises:
        ArtifactError: It is missing, truncated or damaged.
        UnsupportedError: It holds no ML program, or one of a newer operation set.
        TargetError: There is no such chip.
    """
    rules = load_rules()
    applying = rules.for_chip(chip)
    return _place(read_facts(path), rules, applying, compute_units, chip)


def _place(
    facts: Sequence[OperationFacts],
    rules: Rules,
    applying: Sequence[Rule],
    compute_units: ComputeUnits,
    chip: str | None,
) -> Placement:
    allowed = ALLOWED[compute_units]
    refusals = [_refusals(item, applying, allowed) for item in facts]
    units = [tuple(unit for unit in allowed if unit not in refused) for refused in refusals]
    assignment = assign(facts, units, rules.planner)
    moved = transfers(facts, assignment.units)
    whole = sum(assignment.costs_us) or 1.0
    operations = tuple(
        OperationPlacement(
            index=item.operator.index,
            name=item.operator.name,
            type=item.operator.type,
            units=units[index],
            preferred=assignment.units[index],
            segment=assignment.segments[index],
            compute_dtype=item.operator.compute_dtype,
            macs=item.operator.macs,
            weight_bytes=item.operator.weight_bytes,
            activation_bytes=item.activation_bytes,
            reasons={unit: _reason(found, rules, chip) for unit, found in refusals[index].items()},
            sources=_sources(refusals[index].values()),
            cost=assignment.costs_us[index] / whole,
        )
        for index, item in enumerate(facts)
    )
    shares, takes = unit_shares(operations, allowed)
    return Placement(
        kind="predicted",
        compute_units=compute_units,
        chip=chip,
        operations=operations,
        segments=max(assignment.segments, default=-1) + 1,
        transfers=moved.count,
        transfer_bytes=moved.bytes,
        shares=shares,
        takes=takes,
        notes=tuple(_notes(operations, rules, chip, shares, takes)),
    )


def unit_shares(
    operations: Sequence[OperationPlacement], allowed: Sequence[Unit]
) -> tuple[dict[Unit, float], dict[Unit, float]]:
    """Return the share of the multiply-accumulates that each unit is expected to take, and the share it could take.

    A program without any is counted by its operations.
    """
    counted = any(item.macs for item in operations)
    weights = [item.macs if counted else 1 for item in operations]
    whole = sum(weights) or 1
    weighed = list(zip(operations, weights, strict=True))
    taken = {unit: sum(size for item, size in weighed if item.preferred == unit) / whole for unit in allowed}
    possible = {unit: sum(size for item, size in weighed if unit in item.units) / whole for unit in allowed}
    return taken, possible


def _refusals(facts: OperationFacts, rules: Sequence[Rule], allowed: Sequence[Unit]) -> Refusals:
    """Return what each unit has against an operation, rules about its type before those about all."""
    found: Refusals = {}
    for rule in sorted(rules, key=lambda rule: not rule.operations):
        units = [unit for unit in rule.units if unit in allowed]
        reason = rule.refuses(facts) if units else None
        if reason is not None:
            for unit in units:
                found.setdefault(unit, []).append((rule, reason))
    return found


def _reason(found: Sequence[tuple[Rule, str]], rules: Rules, chip: str | None) -> str:
    return "; ".join(
        reason if chip is not None or not rule.generations.limited else f"{reason} ({', '.join(rules.chips_of(rule))})"
        for rule, reason in found
    )


def _sources(found: Iterable[Sequence[tuple[Rule, str]]]) -> tuple[str, ...]:
    sources = (str(source) for refused in found for rule, _ in refused for source in rule.sources)
    return tuple(dict.fromkeys(sources))


def _notes(
    operations: Sequence[OperationPlacement],
    rules: Rules,
    chip: str | None,
    shares: Mapping[Unit, float],
    takes: Mapping[Unit, float],
) -> Iterator[str]:
    yield "what no published rule refuses is taken to run, so the Neural Engine's share is rather an upper bound"
    if chip is None:
        yield "no chip is named: what any known chip refuses counts as refused"
    engine = takes.get("neural_engine", 0.0)
    if shares.get("neural_engine", 0.0) == 0.0 and engine > 0.0:
        yield (
            f"the Neural Engine could take {engine:.0%} of the work, but handing it over is expected to cost more than "
            "it saves"
        )
    if any(item.compute_dtype == "int8" and item.preferred == "neural_engine" for item in operations):
        fast = chip is not None and rules.chip(chip).fast_int8
        yield (
            "its Neural Engine multiplies int8 by int8 faster than float16"
            if fast
            else "int8 by int8 is faster than float16 from A17 Pro and M4 on; before them it saves memory only"
        )
