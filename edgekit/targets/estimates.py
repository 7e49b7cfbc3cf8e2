"""Estimates with the band in which the true time is expected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from edgekit.errors import TargetError
from edgekit.records import LatencyEstimateMs

Errors = TypeVar("Errors", bound=BaseModel)

UNKNOWN = 1.0
"""The error of a model that no row judges: the true time may be anything above half of the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The error that an estimate may have, as a share of the true time, and what that rests on.

    Attributes:
        under: The same where the estimate is below the true time; None: errors of both signs are told as one.
    """

    error: float
    basis: str
    under: float | None = None


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
    under = band.error if band.under is None else band.under
    basis = f"anchored on {', '.join(anchors)}; {band.basis}" if anchors else band.basis
    return LatencyEstimateMs(
        median=median,
        mean=median,
        unanchored=unanchored_ms,
        low=median / (1 + band.error),
        high=median / (1 - under) if under < 1 else None,
        error=band.error,
        basis=basis,
        anchors=anchors,
    )


def read_errors(schema: type[Errors], path: Path, *, written_by: str) -> Errors | None:
    """Read the errors that bands rest on; None where there is no such file.

    Args:
        schema: What the file holds.
        path: The file.
        written_by: The module that writes it, for the message.

    Raises:
        TargetError: The file holds something else.
    """
    if not path.is_file():
        return None
    try:
        return schema.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        raise TargetError(f"{path}: expected error bands as `python -m {written_by}` writes them; {error}") from error
