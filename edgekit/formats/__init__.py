"""The formats: one folder each, found by listing."""

from __future__ import annotations

from functools import cache

from edgekit.contracts import BackendSpec, FormatSpec, list_specs
from edgekit.errors import ArtifactError, RecipeError, UnsupportedError, nearest
from edgekit.records import PRECISIONS, Precision

__all__ = ["format_of_path", "format_spec", "format_specs", "require_cell"]


@cache
def format_specs() -> dict[str, FormatSpec]:
    """Return every format by name. Only the light ``spec.py`` of each folder is imported."""
    specs: list[FormatSpec] = list(list_specs(__name__, __path__))
    return {spec.name: spec for spec in specs}


def format_spec(name: str) -> FormatSpec:
    """Return one format.

    Raises:
        RecipeError: There is no such format.
    """
    specs = format_specs()
    if name not in specs:
        raise RecipeError(f"unknown format {name!r}. {nearest(name, specs)}")
    return specs[name]


def format_of_path(path: str) -> FormatSpec:
    """Return the format of an artifact by its suffix.

    Raises:
        ArtifactError: No format writes such files.
    """
    for spec in format_specs().values():
        if path.rstrip("/").endswith(spec.suffix):
            return spec
    suffixes = ", ".join(spec.suffix for spec in format_specs().values())
    raise ArtifactError(f"expected an artifact ending in {suffixes}; received {path!r}")


def require_cell(spec: FormatSpec, precision: Precision, backend: str | None) -> tuple[BackendSpec, Precision]:
    """Look a cell up in the capability table.

    Returns:
        The backend, and the precision of the program that the artifact is lowered from.

    Raises:
        UnsupportedError: The format's backend cannot hold this precision; the message says why and what to use.
        RecipeError: Unknown backend or precision.
    """
    found = spec.backend(backend)
    if found is None:
        names = [known.name for known in spec.backends]
        raise RecipeError(f"format {spec.name!r} has no backend {backend!r}. {nearest(str(backend), names)}")
    if precision in found.programs:
        return found, found.programs[precision]
    refusal = found.refusals.get(precision)
    if refusal is None:
        raise RecipeError(f"unknown precision {precision!r}. {nearest(precision, PRECISIONS)}")
    raise UnsupportedError(f"{spec.name} ({found.name}) at {precision}", reason=refusal.reason, instead=refusal.instead)
