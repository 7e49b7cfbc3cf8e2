"""Ways of storing a trained network's weights in a Core ML package: size, distance from the model, accuracy.

Three recipes beside this file: a network whose weights are made small afterwards; one that was pruned and clustered
while it was trained; one that was pruned and then quantized with awareness. Every artifact is built by `edgekit build`
and run by the reference evaluator. What training left must be stored without loss: as near to the model as float16 is.

`python -m benchmarks.coreml.compression.run` writes results/coreml_compression.json and .md; exit status 1 when an
artifact failed its comparison, or a lossless one lost something.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, write_result

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RECIPES = ("dense", "trained", "trained_int8")
LOSSLESS_DB = 45.0
"""Of what training left, against the float model: float16 arithmetic and nothing else (limit of fp16: 40)."""
LOSSLESS = ("coreml/fp16+sparse", "coreml/w4+palette", "coreml/w4+palette-sparse")
"""Artifacts of ``trained`` that must lose nothing."""
PUBLISHED = (
    {"network": "MobileNetV2", "way": "8 bits", "smaller": 1.92},
    {"network": "ResNet50", "way": "8 bits", "smaller": 1.99},
    {"network": "several", "way": "4 bits", "smaller": [3.4, 3.9]},
    {"network": "MobileNetV2", "way": "75 % zeros", "smaller": 1.73},
    {"network": "ResNet50", "way": "75 % zeros", "smaller": 3.17},
)
"""Sizes against fp16 that coremltools' documentation gives (guide, "Optimization: performance")."""


def build(name: str, folder: Path) -> dict[str, Any]:
    """Build a recipe and return its manifest."""
    command = [str(Path(sys.executable).parent / "edgekit"), "build", str(HERE / f"{name}.yaml")]
    result = subprocess.run(
        [*command, "-o", str(folder / name), "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode not in (0, 1):
        raise SystemExit(f"{name}: edgekit build left with {result.returncode}: {result.stderr[-2000:]}")
    manifest: dict[str, Any] = json.loads(result.stdout)
    return manifest


def rows_of(recipe: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """One row an artifact; sizes against the recipe's own fp16 package."""
    built = {item["id"]: item for item in manifest["artifacts"]}
    whole = built["coreml/fp16"]["artifact"]["size_bytes"]
    rows = []
    for name, item in built.items():
        if item["artifact"] is None:
            rows.append({"recipe": recipe, "artifact": name, "passed": False, "reason": item["error"]["message"]})
            continue
        parity, size = item["parity"], item["artifact"]["size_bytes"]
        sqnr = parity["versus_source"][0]["sqnr_db"]
        lossless = recipe == "trained" and name in LOSSLESS
        rows.append(
            {
                "recipe": recipe,
                "artifact": name,
                "size_bytes": size,
                "smaller": round(whole / size, 2),
                "sqnr_db": round(sqnr, 1),
                "accuracy": parity["accuracy"],
                "must_be_lossless": lossless,
                "passed": parity["status"] == "pass" and (not lossless or sqnr >= LOSSLESS_DB),
                "reason": parity["reason"],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Write the rows as Markdown."""
    lines = [
        "| recipe | artifact | bytes | smaller than fp16 | SQNR, dB | accuracy | |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        verdict = ("lossless" if row.get("must_be_lossless") else "") if row["passed"] else f"failed: {row['reason']}"
        figures = ("size_bytes", "smaller", "sqnr_db", "accuracy")
        cells = [row["recipe"], f"`{row['artifact']}`", *(str(row.get(key, "")) for key in figures), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            rows += rows_of(recipe, build(recipe, Path(folder)))
    passed = all(row["passed"] for row in rows)
    write_result("coreml_compression", {"artifacts": rows, "published": PUBLISHED, "passed": passed})
    (FOLDER / "coreml_compression.md").write_text(table(rows))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
