"""A cold six-artifact build of MobileNetV2 against the plain converter calls, one after another in fresh processes.

Limits: the cold build takes no longer than the plain calls; a warm one takes under 2 % of it. The build also runs and
compares every artifact, which the plain calls do not.

`python -m benchmarks.build_cost.run` writes results/build_cost.json; exit status 1 when a limit is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import write_result

ROOT = Path(__file__).parents[2]
RESOLUTION = 96
EXPORT = (
    "export=[{format: tflite, precision: [fp32, int8]}, {format: executorch, precision: [fp32, int8]}, "
    "{format: coreml, precision: [fp32, int8], minimum_deployment_target: iOS17}]"
)
RECIPE = "sample_models/mobilenet_v2/recipe.yaml"


def timed(command: list[str], environment: dict[str, str], log: Path) -> float:
    start = time.perf_counter()
    with log.open("ab") as output:
        result = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False)
    if result.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} left with {result.returncode}:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - start


def build_command(folder: Path) -> list[str]:
    edgekit = str(Path(sys.executable).parent / "edgekit")
    changes = [EXPORT, "train.epochs=0", "compress=[]", "profile.targets=[]", "budgets=[]", "verify={samples: 16}"]
    changes += ["data.calibration_samples=16"]
    return [edgekit, "build", RECIPE, "-o", str(folder), *(part for change in changes for part in ("--set", change))]


def main() -> int:
    plain_script = str(Path(__file__).with_name("plain.py"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "EDGEKIT_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        log = folder / "log.txt"
        plain = {
            cell: timed([sys.executable, plain_script, cell, str(folder)], environment, log)
            for cell in (
                "tflite-fp32",
                "tflite-int8",
                "executorch-fp32",
                "executorch-int8",
                "coreml-fp32",
                "coreml-int8",
            )
        }
        cold = timed(build_command(folder / "build"), environment, log)
        warm = min(timed(build_command(folder / "build"), environment, log) for _ in range(3))
    ratios = {"cold / plain": cold / sum(plain.values()), "warm / cold": warm / cold}
    passed = ratios["cold / plain"] <= 1.0 and ratios["warm / cold"] < 0.02
    seconds = {"plain": plain, "plain_total": sum(plain.values()), "cold": cold, "warm": warm}
    write_result(
        "build_cost",
        {"limits": {"cold / plain": 1.0, "warm / cold": 0.02}, "ratios": ratios, "seconds": seconds, "passed": passed},
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
