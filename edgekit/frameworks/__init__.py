"""The frameworks: one folder each, found by listing."""

from __future__ import annotations

from functools import cache

from edgekit.contracts import FrameworkSpec, list_specs
from edgekit.errors import RecipeError, nearest

__all__ = ["framework_spec", "framework_specs"]


@cache
def framework_specs() -> dict[str, FrameworkSpec]:
    """Return every framework by name. Only the light ``spec.py`` of each folder is imported."""
    specs: list[FrameworkSpec] = list(list_specs(__name__, __path__))
    return {spec.name: spec for spec in specs}


def framework_spec(name: str) -> FrameworkSpec:
    """Return one framework.

    Raises:
        RecipeError: There is no such framework.
    """
    specs = framework_specs()
    if name not in specs:
        raise RecipeError(f"unknown framework {name!r}. {nearest(name, specs)}")
    return specs[name]
