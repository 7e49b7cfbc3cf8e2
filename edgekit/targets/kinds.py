"""The kinds of target: one folder each, found by listing."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from edgekit.contracts import TargetSpec
from edgekit.errors import TargetError, nearest


@cache
def target_specs() -> dict[str, TargetSpec]:
    """Return every kind by name. Only the light ``spec.py`` of each folder is imported."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg:
            spec: TargetSpec = importlib.import_module(f"edgekit.targets.{module.name}.spec").SPEC
            found[spec.kind] = spec
    return dict(sorted(found.items()))


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
