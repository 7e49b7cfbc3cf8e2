"""How far emulated phones are from published figures: `python -m benchmarks.fidelity.run [PART ...]`.

Parts: `determinism`, `memory`, `xnnpack`, `ncnn`, `int8`, `cost`; all of them by default, which takes hours of CPU the
first time. Every guest run and simulation is kept in the cache folder, and read again while nothing that made it
changes. A part keeps what other parts wrote to results/fidelity.json. Also written: results/fidelity.md,
results/fidelity.svg and targets/error_bands.json. `--layer static` leaves the trace model out. Exit status 1 when an
aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fidelity import cost, determinism, memory, ratios
from benchmarks.fidelity.aims import judge
from benchmarks.fidelity.bands import write_bands
from benchmarks.fidelity.baseline import mac_estimates
from benchmarks.fidelity.errors import Estimate, by_core, compare, groups
from benchmarks.fidelity.plot import draw
from benchmarks.fidelity.predictions import LAYERS, placed_core, predict
from benchmarks.fidelity.rows import Row, published
from benchmarks.fidelity.tables import write_tables
from benchmarks.results import FOLDER, write_result
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.setup import Toolchain, set_up

PARTS = ("determinism", "memory", "xnnpack", "ncnn", "int8", "cost")
DETERMINISM_CORE = "cortex-a72"
RESULT = FOLDER / "fidelity.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows to estimate, and how; None: all."""

    layers: tuple[str, ...]
    networks: list[str] | None
    devices: list[str] | None

    def has(self, row: Row) -> bool:
        """Whether a row was asked for."""
        return (self.networks is None or row.network in self.networks) and (
            self.devices is None or row.device in self.devices
        )


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=PARTS, default=[])
    parser.add_argument("--layer", action="append", choices=LAYERS, help="static or trace; both when left out")
    parser.add_argument("--network", action="append", help="only these networks of xnnpack and ncnn")
    parser.add_argument("--device", action="append", help="only these devices of xnnpack and ncnn")
    options = parser.parse_args()
    wanted = Wanted(tuple(options.layer or LAYERS), options.network, options.device)
    tools = set_up(_say)
    result = _earlier()
    for part in options.parts or PARTS:
        sys.stderr.write(f"== {part}\n")
        result[part] = _part(part, tools, wanted, result.get(part, {}))
        _finish(result)
    return 0 if result["passed"] else 1


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _part(part: str, tools: Toolchain, wanted: Wanted, before: dict[str, Any]) -> dict[str, Any]:
    if part == "determinism":
        return determinism.measure(tools, make_persona(load_core(DETERMINISM_CORE), tools))
    if part == "memory":
        return memory.measure(tools.coresim)
    if part == "cost":
        return cost.measure()
    if part == "int8":
        return {"ratios": [ratio for layer in wanted.layers for ratio in ratios.xnnpack(layer)]}
    return _rows(part, tools, wanted, before)


def _rows(engine: str, tools: Toolchain, wanted: Wanted, before: dict[str, Any]) -> dict[str, Any]:
    """Estimate an engine's rows; rows and layers that were not asked for stay as they were."""
    rows = published(engine)
    cores = {row.device: placed_core(row.target).core.name for row in rows}
    found = predict(tools, [row for row in rows if wanted.has(row)], wanted.layers)
    predicted = {layer: _kept(before, layer) | found.milliseconds.get(layer, {}) for layer in LAYERS}
    estimates = [each for layer in LAYERS for each in compare(rows, predicted[layer], cores, layer)]
    estimates += mac_estimates(rows, cores)
    result = {
        "estimates": [each.record() for each in estimates],
        "summary": groups(estimates),
        "by_core": {
            layer: {
                "unanchored": by_core(estimates, layer, anchored=False),
                "anchored": by_core(estimates, layer, anchored=True),
            }
            for layer in LAYERS
        },
        "problems": found.problems,
    }
    if engine == "ncnn":
        result["int8_ratios"] = [each for layer in LAYERS for each in ratios.ncnn(predicted[layer], layer)]
    return result


def _kept(before: dict[str, Any], layer: str) -> dict[tuple[str, str, str], float]:
    return {
        (each["engine"], each["device"], each["network"]): each["estimate_ms"]
        for each in before.get("estimates", [])
        if each["layer"] == layer and not each["anchored"]
    }


def estimates_of(result: dict[str, Any]) -> list[Estimate]:
    """Read the estimates of a result back."""
    names = Estimate.__dataclass_fields__
    return [
        Estimate(**{name: each[name] for name in names})
        for engine in ("xnnpack", "ncnn")
        for each in result.get(engine, {}).get("estimates", [])
    ]


def _earlier() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text())["result"] if RESULT.is_file() else {}
    return {part: found[part] for part in PARTS if part in found}


def _finish(result: dict[str, Any]) -> None:
    """Judge, and write everything that is derived from the parts."""
    estimates = estimates_of(result)
    result["aims"] = judge(result, estimates)
    result["passed"] = all(aim["met"] for aim in result["aims"])
    write_bands(estimates)
    draw(estimates, FOLDER / "fidelity.svg")
    write_tables(result, estimates, Path(FOLDER / "fidelity.md"))
    write_result("fidelity", result)


if __name__ == "__main__":
    sys.exit(main())
