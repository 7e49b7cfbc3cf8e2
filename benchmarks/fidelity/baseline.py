"""The baseline to leave far behind: multiply-accumulates times one constant a device, fitted to the anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.fidelity.errors import Estimate, compare
from benchmarks.fidelity.ncnn import networks
from benchmarks.fidelity.rows import Row

# Of the graphs that benchmarks/fidelity/mobilenets.py builds, in millions: `edgekit inspect` lists them an operator.
XNNPACK_MILLION_MACS = {
    "mobilenet_v1": 568.7,
    "mobilenet_v2": 300.8,
    "mobilenet_v3_large": 216.6,
    "mobilenet_v3_small": 56.5,
}


def mac_estimates(rows: Sequence[Row], cores: Mapping[str, str]) -> list[Estimate]:
    """Return the baseline's estimates, anchored as the others are: unanchored it has no unit."""
    macs = {row.key: _million_macs(row) for row in rows}
    return [each for each in compare(rows, macs, cores, "macs") if each.anchored]


def _million_macs(row: Row) -> float:
    if row.engine == "xnnpack":
        return XNNPACK_MILLION_MACS[row.network]
    return networks.NETWORKS[row.network]().macs / 1e6
