"""How far an estimate may be off, from published measurements that the model of its core was held out from.

``targets/error_bands.json`` is written by ``benchmarks/fidelity``::

    {"schema_version": 1,
     "method": "leave one device out: ...",
     "cores": {"cortex-a73": {"static": {"unanchored": {"rows": 8, "devices": 2, "median": 0.12, "max": 0.26},
                                         "anchored": {...}},
                              "trace": {...}}}}

Errors are absolute shares of the published time. A band is the largest error among the rows of its core: with so few
rows no quantile would mean more. A core without rows has the widest band of all cores, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.targets.devices import packaged_targets
from edgekit.targets.estimates import UNKNOWN, Band, read_errors

Layer = Literal["static", "trace"]
Anchoring = Literal["unanchored", "anchored"]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class RowErrors(_Strict):
    """Errors of rows that a core table was held out from."""

    rows: int = Field(ge=1)
    devices: int = Field(default=1, ge=1)
    median: Share
    max: Share


class ErrorBands(_Strict):
    """The file, whole."""

    schema_version: Literal[1]
    method: str = "published rows of devices that the model was not adjusted on"
    cores: dict[str, dict[Layer, dict[Anchoring, RowErrors]]]


def bands_path() -> Path:
    """Return where the packaged error bands lie."""
    return packaged_targets() / "error_bands.json"


def read_bands(path: Path | None = None) -> ErrorBands:
    """Read the error bands; a file that is not there has no rows.

    Raises:
        TargetError: The file does not hold error bands.
    """
    found = read_errors(ErrorBands, path or bands_path(), written_by="benchmarks.fidelity.run")
    return found or ErrorBands(schema_version=1, cores={})


def band_of(bands: ErrorBands, core: str, layer: Layer, *, anchored: bool) -> Band:
    """Return the error band of a core and a model layer.

    Args:
        bands: What was measured.
        core: Name of the core table.
        layer: ``static`` or ``trace``.
        anchored: Whether a measurement of the device scaled the estimate. Where no anchored row was held out, the
            unanchored ones stand in.
    """
    wanted: tuple[Anchoring, ...] = ("anchored", "unanchored") if anchored else ("unanchored",)
    for anchoring in wanted:
        own = bands.cores.get(core, {}).get(layer, {}).get(anchoring)
        if own is not None:
            return Band(error=own.max, basis=_told(own, core, layer, anchoring))
        widest = _widest(bands, layer, anchoring)
        if widest is not None:
            name, errors = widest
            basis = f"no published row of {core}: the widest band of all cores, {_told(errors, name, layer, anchoring)}"
            return Band(error=errors.max, basis=basis)
    return Band(error=UNKNOWN, basis=f"nothing: no published row judges the {layer} model, so nobody can say")


def _widest(bands: ErrorBands, layer: Layer, anchoring: Anchoring) -> tuple[str, RowErrors] | None:
    found = [
        (name, layers[layer][anchoring])
        for name, layers in sorted(bands.cores.items())
        if anchoring in layers.get(layer, {})
    ]
    return max(found, key=lambda item: item[1].max, default=None)


def _told(errors: RowErrors, core: str, layer: Layer, anchoring: Anchoring) -> str:
    rows = f"{errors.rows} published row{'' if errors.rows == 1 else 's'}"
    devices = f"{errors.devices} device{'' if errors.devices == 1 else 's'}"
    return (
        f"{rows} of {devices} with {core} that the {layer} model was held out from ({anchoring}): "
        f"error {errors.median:.0%} median, {errors.max:.0%} at most"
    )
