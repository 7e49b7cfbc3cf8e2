"""Which operators and which kernels stand behind a changed instruction count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekit.budget.figures import format_change
from edgekit.records import EmulatedOperator, EmulatedProfile
from edgekit.units import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorChange:
    """One operator whose count or kernel differs. A side is None where a profile has no such operator."""

    name: str
    type: str
    before: int | None
    after: int | None
    kernel_before: str | None
    kernel_after: str | None

    @property
    def growth(self) -> int:
        """Instructions more than before (negative: fewer)."""
        return (self.after or 0) - (self.before or 0)

    def __str__(self) -> str:
        """Say what changed in one line: the operator, its counts, its kernels."""
        counts = " → ".join("none" if count is None else format_count(count) for count in (self.before, self.after))
        both = self.before is not None and self.after is not None
        change = f", {format_change(self.growth, self.before, 'instructions')}" if both and self.growth else ""
        kernels = [kernel or "unknown kernel" for kernel in (self.kernel_before, self.kernel_after)]
        if not both:
            told = kernels[self.before is None]
        else:
            told = kernels[0] if kernels[0] == kernels[1] else " → ".join(kernels)
        return f"{self.name} ({self.type}): {counts} instructions{change}, {told}"


def operator_changes(before: EmulatedProfile, after: EmulatedProfile) -> tuple[OperatorChange, ...]:
    """Match the operators of two profiles by name and return those that differ, the largest change first."""
    old, new = _by_name(before.operators), _by_name(after.operators)
    changes = []
    for key in dict.fromkeys((*old, *new)):
        first, second = old.get(key), new.get(key)
        if first is not None and second is not None and _looks(first) == _looks(second):
            continue
        told = second or first
        if told is not None:
            changes.append(
                OperatorChange(
                    name=told.name,
                    type=told.type,
                    before=first.instructions if first else None,
                    after=second.instructions if second else None,
                    kernel_before=first.kernel if first else None,
                    kernel_after=second.kernel if second else None,
                )
            )
    return tuple(sorted(changes, key=lambda change: -abs(change.growth)))


def outside_operators(profile: EmulatedProfile) -> int:
    """Return the instructions of an inference that belong to no operator: the runtime's own."""
    return profile.instructions - sum(operator.instructions for operator in profile.operators)


def explain_change(before: EmulatedProfile, after: EmulatedProfile) -> tuple[str, ...]:
    """Return one line an operator behind a changed count; what lies outside of operators comes last."""
    if not before.operators or not after.operators:
        return ("the operators of one of the profiles are not known, so nobody can say which of them changed",)
    lines = [str(change) for change in operator_changes(before, after)]
    rest = outside_operators(before), outside_operators(after)
    if rest[0] != rest[1]:
        lines.append(f"outside of operators: {format_count(rest[0])} → {format_count(rest[1])} instructions")
    if before.runtime.version != after.runtime.version:
        lines.append(f"the runtime changed: {before.runtime.name} {before.runtime.version} → {after.runtime.version}")
    return tuple(lines)


def sum_up(lines: Sequence[str], shown: int = 3) -> str:
    """Join the first lines of an explanation, and count the others."""
    more = f"; and {len(lines) - shown} more" if len(lines) > shown else ""
    return "; ".join(lines[:shown]) + more


def _by_name(operators: Iterable[EmulatedOperator]) -> dict[tuple[str, int], EmulatedOperator]:
    """Key operators by name and by which of that name they are: names need not be unique."""
    seen: Counter[str] = Counter()
    found = {}
    for operator in operators:
        found[operator.name, seen[operator.name]] = operator
        seen[operator.name] += 1
    return found


def _looks(operator: EmulatedOperator) -> tuple[int, str | None]:
    return operator.instructions, operator.kernel
