"""Float16 overflows in the middle of a trained model: is it found, located, repaired and verified?

Built three times from one recipe: with ``keep_float32: auto``, with nothing kept (which must fail, and name the layer),
and the float32 artifact of the first is evaluated as if it were rounded after every operation (``verify --compute``).
`python -m benchmarks.coreml.overflow.run` writes results/coreml_overflow.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.results import write_result

ROOT = Path(__file__).parents[3]
EDGEKIT = str(Path(sys.executable).parent / "edgekit")
RECIPE = str(Path(__file__).with_name("recipe.yaml"))
LAYER = "attention"
LEAST_SQNR_DB = 50.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="edgekit-overflow-") as name:
        folder = Path(name)
        repaired = run("build", RECIPE, "-o", str(folder / "repaired"), "--json")
        unkept = "export=[{format: coreml, precision: [fp16], keep_float32: []}]"
        broken = run("build", RECIPE, "-o", str(folder / "broken"), "--json", "--set", unkept)
        foreseen = run("verify", str(folder / "repaired"), "--compute", "fp16", "--json")
    result = {
        "limit_sqnr_db": LEAST_SQNR_DB,
        "repaired": summary(repaired, "coreml/fp16"),
        "float32": summary(repaired, "coreml/fp32"),
        "nothing_kept": summary(broken, "coreml/fp16"),
        "foreseen_from_float32": next(
            item["parity"]["reason"] for item in foreseen["parities"] if item["artifact"] == "coreml/fp32"
        ),
    }
    result["passed"] = passed(result)
    write_result("coreml_overflow", result)
    return 0 if result["passed"] else 1


def run(*arguments: str) -> dict[str, Any]:
    """Run edgekit and return the document that it prints; a failed check is a result."""
    found = subprocess.run([EDGEKIT, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode not in (0, 1):
        raise SystemExit(f"edgekit {' '.join(arguments)} left with {found.returncode}: {found.stderr}")
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def summary(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a build says of one artifact."""
    report = next(item for item in manifest["artifacts"] if item["id"] == name)
    artifact, parity = report["artifact"], report["parity"]
    half = artifact["half_precision"]
    return {
        "status": parity["status"],
        "reason": parity["reason"],
        "sqnr_db": min((output["sqnr_db"] for output in parity["versus_source"]), default=None),
        "accuracy": parity["accuracy"],
        "size_bytes": artifact["size_bytes"],
        "notes": artifact["notes"],
        "operations": len(artifact["operators"]),
        "first_overflow": half["first_overflow"] if half else None,
        "layer": half["worst"][0]["layer"] if half and half["first_overflow"] else None,
        "kept_in_float32": half["kept_in_float32"] if half else None,
    }


def passed(result: dict[str, Any]) -> bool:
    """Whether the overflow was repaired, and is told where it is not."""
    repaired, broken = result["repaired"], result["nothing_kept"]
    return (
        repaired["status"] == "pass"
        and repaired["sqnr_db"] > result["limit_sqnr_db"]
        and repaired["accuracy"] == result["float32"]["accuracy"]
        and bool(repaired["kept_in_float32"])
        and broken["status"] == "fail"
        and broken["layer"] == LAYER
        and f"layer {LAYER}" in broken["reason"]
        and broken["first_overflow"] in (result["foreseen_from_float32"] or "")
    )


if __name__ == "__main__":
    sys.exit(main())
