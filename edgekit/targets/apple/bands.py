"""How far a prediction may be off: published latencies of chips that its figures were not adjusted on.

``targets/apple_error_bands.json`` is written by ``benchmarks/apple``::

    {"schema_version": 1, "method": "...", "units": {"neural_engine": {"rows": 7, "chips": ["a17-pro", "m4"],
                                                                       "median": 0.2, "over": 0.5, "under": 0.2}}}

Errors are shares of the published time, those of predictions above it and below it apart. A band is the largest error
among the rows of the unit that takes most of the time: with so few rows no quantile would mean more. A unit without
rows has no band: nobody can say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.records import Unit
from edgekit.targets.devices import packaged_targets
from edgekit.targets.estimates import UNKNOWN, Band, read_errors

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitErrors(_Strict):
    """Errors of the rows that ran on one unit."""

    rows: int = Field(ge=1)
    chips: tuple[str, ...] = Field(min_length=1)
    median: Share
    """Of all of them, whatever their sign."""
    over: Share
    """The largest of a prediction above the published time."""
    under: Annotated[float, Field(ge=0, lt=1)]
    """The largest of a prediction below it."""


class AppleErrorBands(_Strict):
    """The file, whole."""

    schema_version: Literal[1]
    method: str
    units: dict[Unit, UnitErrors]


def bands_path() -> Path:
    """Return where the packaged error bands lie."""
    return packaged_targets() / "apple_error_bands.json"


def read_bands(path: Path | None = None) -> AppleErrorBands | None:
    """Read the error bands; None where there is no file.

    Raises:
        TargetError: The file does not hold error bands.
    """
    return read_errors(AppleErrorBands, path or bands_path(), written_by="benchmarks.apple.run")


def band_of(bands: AppleErrorBands | None, unit: Unit) -> Band:
    """Return the error band of predictions that a unit takes most of."""
    name = unit.replace("_", " ")
    found = bands.units.get(unit) if bands is not None else None
    if found is None:
        return Band(error=UNKNOWN, basis=f"nothing: no published row judges predictions for the {name}")
    rows = f"{found.rows} published row{'' if found.rows == 1 else 's'}"
    return Band(
        error=found.over,
        under=found.under,
        basis=f"{rows} on the {name} of {', '.join(found.chips)}, none adjusted on its own chip: error "
        f"{found.median:.0%} median, {found.over:.0%} too slow and {found.under:.0%} too fast at most",
    )
