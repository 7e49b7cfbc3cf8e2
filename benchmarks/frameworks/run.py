"""Does the framework cost anything on the device? The same network with the same weights, from PyTorch and from Keras.

Both are converted to ExecuTorch at fp32 and int8 (after training) by `edgekit convert`, and counted on emulated phones.
The figure is the instructions of an inference of the program from Keras over those of the one from PyTorch: exact, the
same on every machine. `python -m benchmarks.frameworks.run [MODEL ...]` writes results/frameworks.json, and keeps the
rows of models that it was not asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, write_result

ROOT = Path(__file__).parents[2]
MODELS = ("keyword_spotting", "image_classification", "person_detection", "mobilenet_v2")
PRECISIONS = ("fp32", "int8")
EDGEKIT = str(Path(sys.executable).parent / "edgekit")
TARGET = "pixel-4"
LIMIT = 1.05


def main() -> int:
    results = earlier_rows()
    for model in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory(prefix="edgekit-frameworks-") as folder:
            results[model] = measure(model, Path(folder))
        sys.stderr.write(f"{model}: {json.dumps(results[model])}\n")
        write(results)
    return 1 if slow_programs(results) else 0


def earlier_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run, none where there was none."""
    path = FOLDER / "frameworks.json"
    models: dict[str, dict[str, Any]] = json.loads(path.read_text())["result"]["models"] if path.is_file() else {}
    return models


def slow_programs(results: dict[str, dict[str, Any]]) -> list[str]:
    """Name the programs that take more instructions from Keras than the limit allows."""
    return [
        f"{model} {precision}"
        for model, row in results.items()
        for precision, found in row.items()
        if found["ratio"] > LIMIT
    ]


def write(results: dict[str, dict[str, Any]]) -> None:
    """Write what is known so far, in the order of models."""
    ordered = {model: results[model] for model in sorted(results)}
    slow = slow_programs(ordered)
    write_result("frameworks", {"limit": LIMIT, "target": TARGET, "models": ordered, "slow": slow, "passed": not slow})


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Convert both twins of a sample model and count them at each precision."""
    make_weights = [sys.executable, "-m", "benchmarks.frameworks.make_weights", model, str(folder)]
    subprocess.run(make_weights, check=True, cwd=ROOT, stdout=sys.stderr)
    manifests = {
        "pytorch": convert(model, "pytorch", folder / "weights.pt", folder),
        "keras": convert(model, "keras", folder / "weights.npz", folder),
    }
    found = {}
    for precision in PRECISIONS:
        artifacts = {name: artifact(manifest, precision) for name, manifest in manifests.items()}
        paths = {name: folder / name / item["artifact"]["path"] for name, item in artifacts.items()}
        counts = {name: instructions(path) for name, path in paths.items()}
        found[precision] = {
            "ratio": counts["keras"] / counts["pytorch"],
            **{name: {"instructions": counts[name], **summary(item)} for name, item in artifacts.items()},
        }
    return found


def instructions(path: Path) -> int:
    """Count one inference on the emulated phone."""
    command = [EDGEKIT, "profile", str(path), "--target", TARGET, "--model", "counts", "--json"]
    return int(answer(command)["instructions"])


def convert(model: str, framework: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Convert one twin and return the manifest."""
    command = [EDGEKIT, "convert", f"sample_models.{model}.model_{framework}:build"]
    command += ["--to", "executorch", "--precision", ",".join(PRECISIONS), "--json", "-o", str(folder / framework)]
    command += ["--set", f"model.weights={weights}", "--set", "verify.samples=32"]
    command += ["--set", "data=" + json.dumps({"module": f"sample_models.{model}.data:load"})]
    return answer(command)


def answer(command: list[str]) -> dict[str, Any]:
    """Run edgekit and return the document that it prints."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} left with {result.returncode}: {result.stderr}")
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def artifact(manifest: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return what the manifest says of one artifact."""
    return next(item for item in manifest["artifacts"] if item["id"] == f"executorch/{precision}")


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that explain a difference."""
    coverage = report["artifact"]["coverage"]
    return {
        "size_bytes": report["artifact"]["size_bytes"],
        "partitions": coverage["partitions"],
        "delegated": coverage["operators"],
        "sqnr_db": min(output["sqnr_db"] for output in report["parity"]["versus_source"]),
    }


if __name__ == "__main__":
    sys.exit(main())
