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

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.errors import TargetError
from edgekit.records import LatencyEstimateMs
from edgekit.targets.devices import packaged_targets

Layer = Literal["static", "trace"]
Anchoring = Literal["unanchored", "anchored"]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]

UNKNOWN = 1.0
"""The error of a model that no row judges: the true time may be anything above half of the estimate."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The error that an estimate may have, as a share of the true time, and what that rests on."""

    error: float
    basis: str


def bands_path() -> Path:
    """Return where the packaged error bands lie."""
    return packaged_targets() / "error_bands.json"


def read_bands(path: Path | None = None) -> ErrorBands:
    """Read the error bands; a file that is not there has no rows.

    Raises:
        TargetError: The file does not hold error bands.
    """
    file = path or bands_path()
    if not file.is_file():
        return ErrorBands(schema_version=1, cores={})
    try:
        return ErrorBands.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise TargetError(
            f"{file}: expected error bands as `python -m benchmarks.fidelity` writes them; {error}"
        ) from error


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


def estimate(unanchored_ms: float, factor: float, anchors: tuple[str, ...], band: Band) -> LatencyEstimateMs:
    """Put an estimate into its band.

    Args:
        unanchored_ms: What the model says.
        factor: Measured over estimated time of the anchors; 1 without any.
        anchors: What scaled it.
        band: Its error and basis.

    Example:
        >>> found = estimate(10.0, 1.0, (), Band(error=0.25, basis="8 rows"))
        >>> found.low, round(found.high, 2)
        (8.0, 13.33)
    """
    median = unanchored_ms * factor
    basis = f"anchored on {', '.join(anchors)}; {band.basis}" if anchors else band.basis
    return LatencyEstimateMs(
        median=median,
        mean=median,
        unanchored=unanchored_ms,
        low=median / (1 + band.error),
        high=median / (1 - band.error) if band.error < 1 else None,
        error=band.error,
        basis=basis,
        anchors=anchors,
    )
