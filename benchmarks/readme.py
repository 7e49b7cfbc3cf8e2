"""Fill the generated parts of README.md: `python -m benchmarks.readme [DEMO_TRANSCRIPT]`.

The table of cells comes from the formats' specs, the figures from benchmarks/results/*.json, the transcript from a file
that holds what `make demo` printed. `tests/test_readme.py` fails when the README and these sources disagree.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER
from edgekit.formats import format_specs
from edgekit.records import PRECISIONS

README = Path(__file__).parents[1] / "README.md"


def replace_section(text: str, name: str, body: str) -> str:
    """Put a body between the markers of a section."""
    pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match.group(1)}{body.rstrip()}\n{match.group(2)}", text)


def cells() -> str:
    """Write the capability table: held, or refused with the way out."""
    backends = [(spec, backend) for spec in format_specs().values() for backend in spec.backends]
    names = [spec.name if backend is spec.backends[0] else f"{spec.name}@{backend.name}" for spec, backend in backends]
    lines = ["| precision | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    refusals: dict[str, list[str]] = {}
    for precision in PRECISIONS:
        row = []
        for name, (_, backend) in zip(names, backends, strict=True):
            refusal = backend.refusals.get(precision)
            row.append("yes" if refusal is None else "—")
            if refusal is not None:
                refusals.setdefault(f"{refusal.reason}. Instead: {refusal.instead}.", []).append(f"{name} {precision}")
        lines.append(f"| {precision} | " + " | ".join(row) + " |")
    lines += [
        "",
        "What is refused, why, and what to use (the same words come before any work when a recipe asks for it):",
        "",
    ]
    lines += [f"- {', '.join(places)}: {text}" for text, places in refusals.items()]
    return "\n".join(lines)


def figures() -> str:
    """Write a line a benchmark."""
    results = {path.stem: json.loads(path.read_text())["result"] for path in sorted(FOLDER.glob("*.json"))}
    lines = ["| what | result | limit | command |", "| --- | --- | --- | --- |"]
    for name, describe in FIGURES.items():
        if name in results:
            lines += [
                f"| {what} | {value} | {limit} | `python -m benchmarks.{_module(name)}.run` |"
                for what, value, limit in describe(results[name])
            ]
    return "\n".join(lines)


def _module(result: str) -> str:
    """Return the folder of a result's benchmark: those of Core ML lie together."""
    return result.replace("_", ".", 1) if result.startswith("coreml_") else result


Row = tuple[str, str, str]


def _startup(result: dict[str, Any]) -> list[Row]:
    return [(what, f"{ratio:.2f}x", f"{result['limit']}x") for what, ratio in result["ratios"].items()]


def _build_cost(result: dict[str, Any]) -> list[Row]:
    cold, warm = result["ratios"]["cold / plain"], result["ratios"]["warm / cold"]
    return [
        ("cold six-artifact build of MobileNetV2, against the plain converter calls in turn", f"{cold:.2f}x", "1.0x"),
        ("the same build again, nothing changed", f"{100 * warm:.1f} %", "2 %"),
    ]


def _parity(result: dict[str, Any]) -> list[Row]:
    found = [cell["status"] for row in result["cells"].values() for cell in row.values()]
    counts = ", ".join(f"{found.count(status)} {status}" for status in sorted(set(found)))
    return [
        (f"parity table, {len(result['cells'])} models x formats x precisions (results/parity.md)", counts, "0 wrong")
    ]


def _determinism(result: dict[str, Any]) -> list[Row]:
    flags = [same for row in result["identical"].values() for same in row.values()]
    return [("artifacts identical when built twice in different folders", f"{sum(flags)} of {len(flags)}", "all")]


def _host_profile(result: dict[str, Any]) -> list[Row]:
    ratio = result["edgekit_over_litert_benchmark"]
    interval = f"{ratio['value']:.3f} (95 %: {ratio['low']:.3f} to {ratio['high']:.3f})"
    return [("median latency, edgekit over litert-benchmark, the same file by turns", interval, "within 3 %")]


def _training(result: dict[str, Any]) -> list[Row]:
    rows = []
    for case in result["cases"]:
        plain = case["variants"]["plain"]
        ratios = ", ".join(
            f"{name} {found['ratio']:.2f}x" for name, found in case["variants"].items() if name != "plain"
        )
        what = f"training step of {case['model']} at {case['image']}, batch {case['batch']}, against a plain "
        rows.append((f"{what}{plain['autocast']} step on {result['device']}", ratios, "1.3x (on a GPU)"))
    return rows


def _frameworks(result: dict[str, Any]) -> list[Row]:
    return [
        (
            f"ExecuTorch program of {model} from Keras, its instructions over those of the one from PyTorch",
            ", ".join(f"{precision} {found['ratio']:.3f}" for precision, found in row.items()),
            f"{result['limit']}",
        )
        for model, row in result["models"].items()
    ]


def _fidelity(result: dict[str, Any]) -> list[Row]:
    listed = "by core and by ratio in results/fidelity.md"
    return [
        (
            f"emulated phones: {aim['aim']}",
            aim["reached"] if aim["reached"].count(",") < 6 else listed,
            "met" if aim["met"] else "missed",
        )
        for aim in result["aims"]
    ]


def _coreml_speed(result: dict[str, Any]) -> list[Row]:
    limits = f"{result['limits']['time']:g}x, {result['limits']['memory']:g}x"
    return [
        (
            f"Core ML reference evaluator, {network} at {precision}, against eager PyTorch: time, memory",
            f"{found['ratio']:.2f}x, {found['memory_ratio']:.2f}x",
            limits,
        )
        for network, row in result["networks"].items()
        for precision, found in row.items()
    ]


def _coreml_overflow(result: dict[str, Any]) -> list[Row]:
    repaired, kept = result["repaired"], len(result["repaired"]["kept_in_float32"])
    reached = f"{repaired['sqnr_db']:.1f} dB with {kept} of {repaired['operations']} operations in float32"
    return [
        ("Core ML model that overflows float16 inside, found and repaired", reached, f"{result['limit_sqnr_db']:g} dB")
    ]


def _coreml_placement(result: dict[str, Any]) -> list[Row]:
    found = result["held_out"]
    what = "predicted unit against published plans of Core ML that it was not made from"
    return [(what, f"{found['agree']} of {found['rows']} agree", "none")]


def _apple(result: dict[str, Any]) -> list[Row]:
    band = result["bands"]["neural_engine"]
    error = f"median {band['median']:.0%}, from -{band['under']:.0%} to +{band['over']:.0%}"
    others = result["median_error_of_other_chips"]
    return [
        (f"predicted latency on Apple chips, {band['rows']} published rows, leave one chip out", error, "none"),
        ("the same on chips that nothing was adjusted on", f"median {others:.0%}", "50 %"),
    ]


FIGURES = {
    "startup": _startup,
    "build_cost": _build_cost,
    "parity": _parity,
    "determinism": _determinism,
    "host_profile": _host_profile,
    "frameworks": _frameworks,
    "training": _training,
    "fidelity": _fidelity,
    "coreml_speed": _coreml_speed,
    "coreml_overflow": _coreml_overflow,
    "coreml_placement": _coreml_placement,
    "apple": _apple,
}


def render(text: str, transcript: str | None = None) -> str:
    """Fill every section of the README."""
    text = replace_section(replace_section(text, "cells", cells()), "figures", figures())
    return text if transcript is None else replace_section(text, "demo", f"```\n{transcript.rstrip()}\n```")


def main() -> int:
    transcript = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else None
    README.write_text(render(README.read_text(), transcript))
    return 0


if __name__ == "__main__":
    sys.exit(main())
