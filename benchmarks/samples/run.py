"""What the sample models come to: every artifact of every recipe, in the README of its folder.

`python -m benchmarks.samples.run [MODEL ...]` builds the recipes (trained stages come from the cache where they are
there), writes results/samples.json after every model, keeps the rows of models that it is not asked for, and fills the
section between the markers of each sample's README. Exit status 1 when a build fails or a check of it does not hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.readme import replace_section
from benchmarks.results import FOLDER, write_result
from benchmarks.steps import COREML_STEPS, IN_FLOAT32, PAIR, steps_apart
from edgekit.budget.figures import FIGURES, format_figure
from edgekit.records import ArtifactReport
from edgekit.store.manifest import read_manifest

ROOT = Path(__file__).parents[2]
MODELS = tuple(sorted(path.parent.name for path in (ROOT / "sample_models").glob("*/recipe.yaml")))
COLUMNS = {
    "size": "size",
    "accuracy": "accuracy",
    "accuracy_drop": "drop",
    "sqnr_db": "SQNR",
    "max_steps": "steps off the program",
}


def main() -> int:
    document = FOLDER / "samples.json"
    results: dict[str, Any] = json.loads(document.read_text())["result"] if document.is_file() else {}
    for model in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            results[model] = build(model, Path(folder))
        write_result("samples", dict(sorted(results.items())))
        write_section(model, results[model])
    return int(any(result["exit_code"] for result in results.values()))


def build(model: str, folder: Path) -> dict[str, Any]:
    """Build a recipe as a user does, profiles and their budgets left out, and sum its artifacts up."""
    exit_code = run_build(model, folder / "recipe", ())
    manifest = read_manifest(folder / "recipe")
    reports = manifest.artifacts
    return {
        "exit_code": exit_code,
        "source_accuracy": manifest.source_accuracy,
        "samples": max(report.parity.samples for report in reports if report.parity is not None),
        "artifacts": {report.id: row(report) for report in reports},
        "steps_from_tflite": from_tflite(model, folder, [report.id for report in reports]),
    }


def run_build(model: str, folder: Path, settings: tuple[str, ...]) -> int:
    """Build a recipe; 1 when a check of it does not hold."""
    command = [str(Path(sys.executable).parent / "edgekit"), "build", f"sample_models/{model}/recipe.yaml"]
    command += ["-o", str(folder)]
    for setting in ("profile.targets=[]", "budgets=[]", *settings):
        command += ["--set", setting]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        sys.exit(f"{model} was not built:\n{result.stderr}")
    return result.returncode


def from_tflite(model: str, folder: Path, artifacts: list[str]) -> dict[str, float]:
    """Find how far Core ML's int8 outputs lie from TFLite's, where both are there; with float32 too where that is far.

    Returns:
        Steps of the outputs' grids by the arithmetic between the integers; empty where outputs have no grid.
    """
    apart = steps_apart(folder / "recipe") if set(PAIR) <= set(artifacts) else None
    if apart is None:
        return {}
    if apart <= COREML_STEPS:
        return {"float16": apart}
    run_build(model, folder / "float32", (f"export={json.dumps(IN_FLOAT32)}",))
    exact = steps_apart(folder / "float32")
    return {"float16": apart} | ({} if exact is None else {"float32": exact})


def row(report: ArtifactReport) -> dict[str, str]:
    """Sum an artifact up as text, each figure with its unit."""
    if report.parity is None or report.parity.status == "not run":
        return {"size": _figure(report, "size"), "status": "not run"}
    return {name: _figure(report, name) for name in COLUMNS} | {"status": report.parity.status}


def _figure(report: ArtifactReport, name: str) -> str:
    value = FIGURES[name].read(report, None).value
    if name == "max_steps":
        return "–" if value is None else f"{value:.1f}"
    return format_figure(value, FIGURES[name].unit)


def write_section(model: str, result: dict[str, Any]) -> None:
    """Fill the section of a sample's README."""
    readme = ROOT / "sample_models" / model / "README.md"
    readme.write_text(replace_section(readme.read_text(), "figures", section(result)))


def section(result: dict[str, Any]) -> str:
    """Write a sample's figures as Markdown."""
    lines = [
        f"`python -m benchmarks.samples.run` builds it. Its source model is right on {result['source_accuracy']:.2%} "
        f"of all test samples;\nthe artifacts ran on {result['samples']} of them:",
        "",
        "| artifact | " + " | ".join(COLUMNS.values()) + " |",
        "| --- " + "| ---: " * len(COLUMNS) + "|",
    ]
    for name, figures in result["artifacts"].items():
        cells = [figures.get(column, "–") for column in COLUMNS]
        if figures["status"] != "pass":
            cells[1] = f"{figures['status']}: {cells[1]}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    apart = result["steps_from_tflite"]
    if apart:
        lines += ["", f"Core ML's int8 outputs lie at most {apart['float16']:.0f} steps of their grid from TFLite's."]
    if "float32" in apart:
        lines.append(
            f"With `keep_float32: ['*']`, without float16 and so without the Neural Engine: {apart['float32']:.0f}."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
