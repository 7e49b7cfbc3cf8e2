"""The aims, and whether they are met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.errors import Estimate, by_core, summary

XNNPACK_AIMS = (("unanchored", False, 0.10, 0.20), ("anchored", True, 0.04, 0.10))
NCNN_AIMS = (("unanchored", False, 0.15), ("anchored", True, 0.07))
RATIO_AIM = 0.20
LAYERS = ("trace", "static")


def judge(result: dict[str, Any], estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Return each aim with what was reached; an aim of a part that did not run is not met."""
    aims = [_determinism(result.get("determinism", {}))]
    for layer in LAYERS:
        of_layer = [each for each in estimates if each.layer == layer]
        aims += _xnnpack([each for each in of_layer if each.engine == "xnnpack"], layer)
        aims += _ncnn([each for each in of_layer if each.engine == "ncnn" and each.standing == "held out"], layer)
    aims += _ratios(result.get("int8", {}).get("ratios", []))
    checks = result.get("cost", {}).get("checks", {})
    aims += [
        _aim(f"CPU time of MobileNetV2, cold: {name}", _seconds(result["cost"]), met) for name, met in checks.items()
    ]
    return aims if checks else [*aims, _aim("cost", "not run", met=False)]


def _aim(name: str, reached: str, met: bool) -> dict[str, Any]:
    return {"aim": name, "reached": reached, "met": met}


def _seconds(cost: dict[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cost["cpu_seconds"].items())


def _determinism(found: dict[str, Any]) -> dict[str, Any]:
    name = "library counts identical over 10 runs, other folders and addresses, LiteRT and ExecuTorch"
    if not found:
        return _aim(name, "not run", met=False)
    counts = {runtime: each["distinct_counts"] for runtime, each in found["runtimes"].items()}
    return _aim(name, ", ".join(f"{runtime}: {count} distinct" for runtime, count in counts.items()), found["passed"])


def _xnnpack(estimates: Sequence[Estimate], layer: str) -> list[dict[str, Any]]:
    aims = []
    for name, anchored, median, largest in XNNPACK_AIMS:
        found = summary([each for each in estimates if each.anchored == anchored])
        what = f"XNNPACK rows, {layer}, {name}: median at most {median:.0%}, largest at most {largest:.0%}"
        aims.append(_judged(what, found, median, largest))
    return aims


def _ncnn(estimates: Sequence[Estimate], layer: str) -> list[dict[str, Any]]:
    aims = []
    for name, anchored, median in NCNN_AIMS:
        cores = by_core(estimates, layer, anchored=anchored)
        what = f"ncnn rows, held out, {layer}, {name}: median at most {median:.0%} on every core"
        if not cores:
            aims.append(_aim(what, "not run", met=False))
            continue
        reached = ", ".join(
            f"{core} {found['median']:.0%} (largest {found['max']:.0%})" for core, found in cores.items()
        )
        aims.append(_aim(what, reached, all(found["median"] <= median for found in cores.values())))
    return aims


def _judged(what: str, found: dict[str, Any], median: float, largest: float) -> dict[str, Any]:
    if not found["rows"]:
        return _aim(what, "not run", met=False)
    reached = f"median {found['median']:.1%}, largest {found['max']:.1%} of {found['rows']} rows"
    return _aim(what, reached, found["median"] <= median and found["max"] <= largest)


def _ratios(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    what = f"int8 over fp32 within {RATIO_AIM:.0%} of published ratios (all multi-threaded)"
    if not found:
        return [_aim(what, "not run", met=False)]
    reached = ", ".join(
        f"{each['target']} {each['network']} {each['layer']} {each['estimated_ratio']:.2f} for {each['ratio']}"
        for each in found
    )
    return [_aim(what, reached, all(abs(each["error"]) <= RATIO_AIM for each in found))]
