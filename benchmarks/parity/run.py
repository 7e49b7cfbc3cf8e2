"""The parity table: every sample model x format x precision. Each cell is a pass, or a refusal that says what to use.

A cell that is neither (a failed comparison, a crash) is wrong, and the benchmark exits with 1. Core ML cells are run by
Core ML on macOS, elsewhere by the reference evaluator. What Core ML artifacts are to reach is written beside the table.

`python -m benchmarks.parity.run [MODEL ...] [--framework keras] [--formats coreml,tflite]` writes results/parity.json
and results/parity.md, after every model, and keeps the cells that it is not asked for. Models are trained for one epoch
on their generated data: parity is about conversion, not about accuracy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results import FOLDER, write_result
from benchmarks.steps import COREML_STEPS, IN_FLOAT32, PAIR, steps_apart
from edgekit.errors import UnsupportedError
from edgekit.formats import format_specs, require_cell

ROOT = Path(__file__).parents[2]
PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "w8")
MODELS = tuple(sorted(path.parent.name for path in (ROOT / "sample_models").glob("*/recipe.yaml")))
COREML_AIMS_DB = {"fp32": 90.0, "fp16": 50.0}
"""SQNR that Core ML artifacts are to keep against the source model."""


def cells(formats: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Split the capability table of some formats into export rules and refusals."""
    rules, refusals = [], {}
    for spec in (format_specs()[name] for name in formats):
        held = []
        for precision in PRECISIONS:
            try:
                require_cell(spec, precision, None)
                held.append(precision)
            except UnsupportedError as error:
                refusals[f"{spec.name}/{precision}"] = {
                    "status": "refused",
                    "why": error.reason,
                    "instead": error.instead,
                }
        rules.append({"format": spec.name, "precision": held})
    return rules, refusals


def evaluate(model: str, framework: str, rules: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """Build a sample model in every cell, and find how far Core ML's int8 artifact lies from TFLite's.

    Where that is more than it should be, the pair is built again with the Core ML one in float32 between its integers:
    what is left then is not float16's doing.
    """
    found = build(model, framework, rules, folder / "cells")
    ours = found.get(PAIR[1], {})
    if all("sqnr_db" in found.get(artifact, {}) for artifact in PAIR):
        ours["steps_from_tflite"] = apart = steps_apart(folder / "cells")
        if apart is not None and apart > COREML_STEPS:
            build(model, framework, IN_FLOAT32, folder / "float32")
            ours["steps_from_tflite_in_float32"] = steps_apart(folder / "float32")
    return found


def build(model: str, framework: str, rules: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, Any]]:
    """Build a sample model of a framework by some export rules and return what became of each artifact."""
    recipe = ROOT / "sample_models" / model / "recipe.yaml"
    written = yaml.safe_load(recipe.read_text())["model"]
    source = f"sample_models.{model}.model_{framework}:build"
    settings = {
        "model": json.dumps({**(written if isinstance(written, dict) else {}), "source": source}),
        "export": json.dumps(rules),
        "budgets": "[]",
        "profile.targets": "[]",
        "train.epochs": "1",
        "compress": "[]",
        "verify": json.dumps({"samples": 64}),
    }
    command = [str(Path(sys.executable).parent / "edgekit"), "build", str(recipe), "--json"]
    command += ["-o", str(folder)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    document = json.loads(result.stdout)
    if "error" in document:
        return {"build": {"status": "wrong", "why": document["error"]["message"]}}
    return {item["id"]: cell(item) for item in document["artifacts"]}


def cell(report: dict[str, Any]) -> dict[str, Any]:
    """Sum one artifact up."""
    if report["error"] is not None:
        status = (
            "refused" if report["error"]["exit_code"] == 2 and "Instead:" in report["error"]["message"] else "wrong"
        )
        return {"status": status, "why": report["error"]["message"]}
    parity = report["parity"]
    found: dict[str, Any] = {"status": {"pass": "pass", "fail": "wrong"}.get(parity["status"], parity["status"])}
    if parity["reason"]:
        found["why"] = parity["reason"]
    if parity["versus_source"]:
        found["sqnr_db"] = round(min(output["sqnr_db"] for output in parity["versus_source"]), 1)
        found["program_sqnr_db"] = round(min(output["sqnr_db"] for output in parity["versus_program"]), 1)
        steps = [output["max_steps"] for output in parity["versus_program"] if output["max_steps"] is not None]
        found["max_steps"] = max(steps) if steps else None
        found["exact"] = round(min(output["exact"] for output in parity["versus_program"]), 4)
    coverage = report["artifact"]["coverage"]
    found["delegated"] = None if coverage is None else round(coverage["operators"], 3)
    return found


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Write the results as Markdown."""
    columns = [f"{spec.name}/{precision}" for spec in format_specs().values() for precision in PRECISIONS]
    lines = ["| model | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for model, row in results.items():
        texts = []
        for column in columns:
            found = row.get(column, row.get("build", {"status": "missing"}))
            text = found["status"]
            if "sqnr_db" in found:
                text += f" {found['sqnr_db']} dB"
                if found["max_steps"] is not None:
                    text += f", {found['max_steps']:.2f} steps"
                if found.get("steps_from_tflite") is not None:
                    text += f" (of TFLite: {found['steps_from_tflite']:.0f})"
            texts.append(text)
        lines.append(f"| {model} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    asked = arguments()
    rules, refusals = cells(tuple(asked.formats.split(",")))
    results = earlier_rows()
    for model in asked.models or MODELS:
        name = model if asked.framework == "pytorch" else f"{model} (Keras)"
        with tempfile.TemporaryDirectory() as folder:
            found = {**refusals, **evaluate(model, asked.framework, rules, Path(folder))}
        results[name] = {**results.get(name, {}), **found}
        sys.stderr.write(table({name: found}))
        write(results)
    return 1 if wrong_cells(results) else 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity.run")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--framework", choices=("pytorch", "keras"), default="pytorch")
    parser.add_argument("--formats", default=",".join(format_specs()))
    return parser.parse_args()


def coreml_aims(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Hold the Core ML cells against what they are to reach: how many do, and which do not."""
    held: dict[str, list[str]] = {}
    missed: dict[str, list[str]] = {}
    for model, row in results.items():
        for precision, limit in COREML_AIMS_DB.items():
            found = row.get(f"coreml/{precision}", {})
            if "sqnr_db" in found:
                place = held if found["sqnr_db"] > limit else missed
                place.setdefault(f"{precision}: above {limit:g} dB", []).append(f"{model} {found['sqnr_db']} dB")
        apart = row.get(PAIR[1], {}).get("steps_from_tflite")
        if apart is not None:
            place = held if apart <= COREML_STEPS else missed
            place.setdefault("int8: within one step of TFLite", []).append(_apart(model, row[PAIR[1]]))
    return {aim: {"held": held.get(aim, []), "missed": missed.get(aim, [])} for aim in {**held, **missed}}


def _apart(model: str, found: dict[str, Any]) -> str:
    exact = found.get("steps_from_tflite_in_float32")
    return f"{model} {found['steps_from_tflite']:.0f} steps" + ("" if exact is None else f" ({exact:.0f} in float32)")


def earlier_rows() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of an earlier run, none where there was none."""
    path = FOLDER / "parity.json"
    return json.loads(path.read_text())["result"]["cells"] if path.is_file() else {}


def wrong_cells(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Name the cells that are neither a pass nor a refusal."""
    return [
        f"{model} {name}" for model, row in results.items() for name, found in row.items() if found["status"] == "wrong"
    ]


def write(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Write what is known so far, in the order of models."""
    ordered = {model: results[model] for model in sorted(results)}
    wrong = wrong_cells(ordered)
    FOLDER.mkdir(exist_ok=True)
    aims = coreml_aims(ordered)
    (FOLDER / "parity.md").write_text(table(ordered) + "\n" + aims_table(aims))
    write_result("parity", {"cells": ordered, "wrong": wrong, "coreml_aims": aims, "passed": not wrong})


def aims_table(aims: dict[str, dict[str, Any]]) -> str:
    """Write the aims of Core ML artifacts as Markdown."""
    lines = ["| Core ML | models that reach it | those that do not |", "| --- | --- | --- |"]
    lines += [f"| {aim} | {len(found['held'])} | {'; '.join(found['missed']) or '–'} |" for aim, found in aims.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
