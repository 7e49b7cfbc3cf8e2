"""Errors of estimates against published figures: anchored or not, held out or not, and the bands that follow."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.fidelity.rows import ANCHORS, Key, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate beside its published figure.

    Attributes:
        core: Name of the core table.
        layer: ``static``, ``trace``, or ``macs`` for the baseline.
        anchored: The estimate was scaled by one measurement of the device, that of ``ANCHORS``.
        error: (estimate - published) / published.
    """

    engine: str
    device: str
    core: str
    network: str
    layer: str
    anchored: bool
    standing: str
    published_ms: float
    estimate_ms: float

    @property
    def error(self) -> float:
        """Signed, as a share of the published figure."""
        return self.estimate_ms / self.published_ms - 1

    def record(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {**asdict(self), "estimate_ms": round(self.estimate_ms, 3), "error": round(self.error, 4)}


def compare(
    rows: Sequence[Row], predicted_ms: Mapping[Key, float], cores: Mapping[str, str], layer: str
) -> list[Estimate]:
    """Pair rows with estimates, unanchored and (but for the anchor itself) anchored.

    A row without an estimate is left out. A device without an estimate of its anchor has no anchored rows.
    """
    found = []
    for row in rows:
        key = row.key
        if key not in predicted_ms:
            continue
        found.append(_estimate(row, predicted_ms[key], cores, layer, anchored=False))
        scale = _anchor_scale(rows, predicted_ms, row)
        if scale is not None and row.network != ANCHORS[row.engine]:
            found.append(_estimate(row, predicted_ms[key] * scale, cores, layer, anchored=True))
    return found


def _estimate(row: Row, estimate_ms: float, cores: Mapping[str, str], layer: str, *, anchored: bool) -> Estimate:
    return Estimate(
        engine=row.engine,
        device=row.device,
        core=cores[row.device],
        network=row.network,
        layer=layer,
        anchored=anchored,
        standing=row.standing,
        published_ms=row.published_ms,
        estimate_ms=estimate_ms,
    )


def _anchor_scale(rows: Iterable[Row], predicted_ms: Mapping[Key, float], of: Row) -> float | None:
    anchor = ANCHORS[of.engine]
    key = (of.engine, of.device, anchor)
    measured = [
        row.published_ms for row in rows if (row.engine, row.device, row.network) == (of.engine, of.device, anchor)
    ]
    return measured[0] / predicted_ms[key] if measured and key in predicted_ms else None


def summary(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Return how many rows, and the median, 90th percentile and maximum of the absolute error, and the mean error."""
    if not estimates:
        return {"rows": 0}
    sizes = sorted(abs(estimate.error) for estimate in estimates)
    return {
        "rows": len(sizes),
        "devices": len({estimate.device for estimate in estimates}),
        "median": round(statistics.median(sizes), 4),
        "p90": round(percentile(sizes, 0.9), 4),
        "max": round(sizes[-1], 4),
        "mean_signed": round(statistics.fmean(estimate.error for estimate in estimates), 4),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values, the next larger one where it falls between two."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def groups(estimates: Sequence[Estimate]) -> dict[str, dict[str, Any]]:
    """Sum up by layer, anchoring, precision and standing; keys such as ``trace/unanchored/fp32/held out``."""
    found: dict[str, list[Estimate]] = {}
    for estimate in estimates:
        precision = "int8" if estimate.network.endswith("_int8") else "fp32"
        anchoring = "anchored" if estimate.anchored else "unanchored"
        for standing in (estimate.standing, "all"):
            key = f"{estimate.layer}/{anchoring}/{precision}/{standing}"
            found.setdefault(key, []).append(estimate)
    return {key: summary(found[key]) for key in sorted(found)}


def by_core(estimates: Sequence[Estimate], layer: str, *, anchored: bool) -> dict[str, dict[str, Any]]:
    """Sum up one layer's estimates core by core."""
    chosen = [each for each in estimates if each.layer == layer and each.anchored == anchored]
    cores = sorted({each.core for each in chosen})
    return {core: summary([each for each in chosen if each.core == core]) for core in cores}
