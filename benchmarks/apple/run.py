"""Predicted against published latencies of Core ML on Apple chips, and how far predictions may be off.

`python -m benchmarks.apple.run` builds the networks, predicts every row of `rows.yaml`, and writes
`results/apple.json` and `targets/apple_error_bands.json`. Two figures of the Neural Engine have no source and were
adjusted, the same for every chip: the sustained share of its peak, and how much faster than main memory its own memory
is. A row is judged with what rows of *other* chips give for them, so that no row is judged by a figure adjusted on it.

Exit status 1 when the device files hold other values than the rows of the chips that they are adjusted on give, or when
the median error of the rows of chips that nothing was adjusted on is above LIMIT.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.results import write_result
from edgekit.contracts import load_entry
from edgekit.formats import format_spec
from edgekit.records import ComputeUnits, Placement, PlacementRequest, Unit
from edgekit.targets import find_device
from edgekit.targets.apple.roofline import WITHIN, quickest
from edgekit.targets.apple.spec import AppleDevice

ROWS = Path(__file__).with_name("rows.yaml")
BANDS = Path(__file__).parents[2] / "targets" / "apple_error_bands.json"
SHARES = tuple(number / 20 for number in range(6, 19))
MULTIPLES = tuple(number / 4 for number in range(4, 17))
LIMIT = 0.5
METHOD = (
    "published latencies of whole networks, each judged with the sustained share and the on-chip multiple that rows of "
    "other chips give (benchmarks/apple/rows.yaml)"
)


@dataclass(frozen=True)
class Row:
    """One published latency."""

    chip: str
    network: str
    artifact: str
    published_ms: float
    source: str


@dataclass(frozen=True)
class Adjusted:
    """The two figures that have no source."""

    share: float
    multiple: float


def read_rows() -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows, and the chips whose rows the device files are adjusted on."""
    content = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return [Row(**row) for row in content["rows"]], tuple(content["adjusted_on"])


def build_all(rows: Iterable[Row], folder: Path) -> None:
    """Build each artifact in a process of its own: converters leak memory."""
    for network, artifact in dict.fromkeys((row.network, row.artifact) for row in rows):
        if (folder / f"{network}-{artifact}.mlpackage").exists():
            continue
        sys.stderr.write(f"building {network} {artifact}\n")
        command = [sys.executable, "-m", "benchmarks.apple.build", network, artifact, str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Model:
    """Predicts rows with any values of the two adjusted figures.

    Args:
        folder: Where the artifacts lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: dict[tuple[Row, Adjusted], float] = {}
        self._placements: dict[tuple[str, str, str], dict[ComputeUnits, Placement]] = {}

    def milliseconds(self, row: Row, adjusted: Adjusted) -> float:
        """Predict a row's latency."""
        if (row, adjusted) not in self._times:
            found = quickest(self.placements(row), with_figures(device_of(row.chip), adjusted))
            self._times[row, adjusted] = found["all"].latency_ms
        return self._times[row, adjusted]

    def placements(self, row: Row) -> dict[ComputeUnits, Placement]:
        """Place a row's network on its chip, for each choice of compute units."""
        key = (row.chip, row.network, row.artifact)
        if key not in self._placements:
            path = self._folder / f"{row.network}-{row.artifact}.mlpackage"
            place = load_entry(str(format_spec("coreml").place))
            chip = device_of(row.chip).chip
            self._placements[key] = {
                units: place(PlacementRequest(path=path, compute_units=units, chip=chip)) for units in WITHIN
            }
        return self._placements[key]

    def busiest(self, row: Row) -> Unit:
        """Return the unit that takes most of a row's predicted time."""
        operators = quickest(self.placements(row), device_of(row.chip))["all"].operators
        units = dict.fromkeys(operator.unit for operator in operators)
        return max(units, key=lambda unit: sum(found.time_ms for found in operators if found.unit == unit))

    def adjust(self, rows: Sequence[Row]) -> Adjusted:
        """Return the values that leave the smallest squared logarithm of the ratio to published times."""
        grid = (Adjusted(share, multiple) for share, multiple in product(SHARES, MULTIPLES))
        return min(
            grid,
            key=lambda found: sum(math.log(self.milliseconds(row, found) / row.published_ms) ** 2 for row in rows),
        )


@cache
def device_of(chip: str) -> AppleDevice:
    device = find_device(f"apple-{chip}")
    if not isinstance(device, AppleDevice):
        raise SystemExit(f"apple-{chip}: expected a device of kind 'apple'")
    return device


def with_figures(device: AppleDevice, adjusted: Adjusted) -> AppleDevice:
    engine = device.neural_engine
    changes = {"sustained_share": adjusted.share, "on_chip_gb_s": adjusted.multiple * engine.stream_gb_s}
    return device.model_copy(update={"neural_engine": engine.model_copy(update=changes)})


def judge(rows: Sequence[Row], adjusted_on: Sequence[str], model: Model) -> list[dict[str, Any]]:
    """Predict each row with what rows of other chips give."""
    usable = [row for row in rows if row.chip in adjusted_on]
    judged = []
    for chip in dict.fromkeys(row.chip for row in rows):
        adjusted = model.adjust([row for row in usable if row.chip != chip])
        for row in (row for row in rows if row.chip == chip):
            predicted_ms = model.milliseconds(row, adjusted)
            judged.append(
                {
                    **vars(row),
                    "unit": model.busiest(row),
                    "predicted_ms": round(predicted_ms, 4),
                    "error": round(predicted_ms / row.published_ms - 1, 4),
                    "adjusted": vars(adjusted),
                }
            )
    return judged


def bands(judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the errors up by unit, as ``edgekit/targets/apple/bands.py`` reads them."""
    units = {}
    for unit in dict.fromkeys(row["unit"] for row in judged):
        rows = [row for row in judged if row["unit"] == unit]
        errors = [row["error"] for row in rows]
        units[unit] = {
            "rows": len(rows),
            "chips": list(dict.fromkeys(row["chip"] for row in rows)),
            "median": round(median(map(abs, errors)), 4),
            "over": max(0.0, *errors),
            "under": -min(0.0, *errors),
        }
    return {"schema_version": 1, "method": METHOD, "units": units}


def stale(adjusted: Adjusted) -> list[str]:
    """Return the device files that hold other values than the rows give."""
    names = sorted(path.stem for path in BANDS.parent.glob("apple-*.yaml"))
    found = []
    for name in names:
        engine = device_of(name.removeprefix("apple-")).neural_engine
        expected = round(adjusted.multiple * engine.stream_gb_s, 1)
        if engine.sustained_share != adjusted.share or not math.isclose(engine.on_chip_gb_s, expected, abs_tol=0.051):
            found.append(name)
    return found


def main() -> int:
    rows, adjusted_on = read_rows()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        build_all(rows, folder)
        model = Model(folder)
        adjusted = model.adjust([row for row in rows if row.chip in adjusted_on])
        judged = judge(rows, adjusted_on, model)
    written = bands(judged)
    BANDS.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    others = [abs(row["error"]) for row in judged if row["chip"] not in adjusted_on]
    passed = median(others) <= LIMIT and not stale(adjusted)
    write_result(
        "apple",
        {
            "limits": {"median error of chips that nothing was adjusted on": LIMIT},
            "adjusted": vars(adjusted),
            "stale": stale(adjusted),
            "median_error_of_other_chips": round(median(others), 4),
            "largest_error_of_other_chips": max(others),
            "bands": written["units"],
            "rows": judged,
            "passed": passed,
        },
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
