"""The frameworks: one folder each, found by listing."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from edgekit.contracts import FrameworkSpec
from edgekit.errors import RecipeError, nearest

__all__ = ["framework_spec", "framework_specs"]


@cache
def framework_specs() -> dict[str, FrameworkSpec]:
    """Return every framework by name. Only the light ``spec.py`` of each folder is imported."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            spec: FrameworkSpec = importlib.import_module(f"{__name__}.{module.name}.spec").SPEC
            found[spec.name] = spec
    return dict(sorted(found.items()))


def framework_spec(name: str) -> FrameworkSpec:
    """Return one framework.

    Raises:
        RecipeError: There is no such framework.
    """
    specs = framework_specs()
    if name not in specs:
        raise RecipeError(f"unknown framework {name!r}. {nearest(name, specs)}")
    return specs[name]
