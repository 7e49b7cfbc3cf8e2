"""The kinds of target: one folder each, found by listing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from edgekit.contracts import TargetSpec, list_specs
from edgekit.errors import TargetError, nearest


@cache
def target_specs() -> dict[str, TargetSpec]:
    """Return every kind by name. Only the light ``spec.py`` of each folder is imported."""
    specs: list[TargetSpec] = list(list_specs("edgekit.targets", [str(Path(__file__).parent)]))
    return {spec.kind: spec for spec in specs}


def target_spec(kind: str, *, place: str) -> TargetSpec:
    """Return one kind.

    Args:
        kind: As a device file says it.
        place: Where it was said; the error names it.

    Raises:
        TargetError: There is no such kind.
    """
    specs = target_specs()
    if kind not in specs:
        raise TargetError(f"{place}: unknown kind of target {kind!r}. {nearest(kind, specs)}")
    return specs[kind]
