"""CPU seconds of a profile, cold: counts and static, trace, int8, and six personas against one."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.fidelity import guests
from edgekit.store.cache import CACHE_VARIABLE, cache_root

NETWORK = "mobilenet_v2"
TARGET = "raspberry-pi-4"
SIX = ("raspberry-pi-3b-plus", "raspberry-pi-4", "orange-pi-5", "pixel", "pixel-2", "pixel-3a")
"""Six cores, so six runs: only devices with one core share a run. XNNPACK tiles by the sizes of caches too, so even
cores for which it picks the same kernels execute other counts: compare `edgekit profile --model counts` of MobileNetV2
in int8 on galaxy-s10 (A76) and galaxy-s21 (X1). Nothing that is known before a run tells which are the same."""
LIMITS = {"static": 15.0, "trace": 40.0}
INT8_SHARE = 1 / 3
SIX_SHARE = 2.0


def measure() -> dict[str, Any]:
    """Run `edgekit profile` in fresh processes with a cache that holds what set-up made and nothing else."""
    fp32, int8 = (guests.xnnpack_model(name) for name in (NETWORK, f"{NETWORK}_int8"))
    seconds = {
        f"{precision} {layer}": _cold(model, layer, (TARGET,))
        for precision, model in (("fp32", fp32), ("int8", int8))
        for layer in ("static", "trace")
    }
    seconds["fp32 static, six personas"] = _cold(fp32, "static", SIX)
    checks = {
        "fp32 static within 15 s": seconds["fp32 static"] < LIMITS["static"],
        "fp32 trace within 40 s": seconds["fp32 trace"] < LIMITS["trace"],
        "int8 static under a third of fp32": seconds["int8 static"] < INT8_SHARE * seconds["fp32 static"],
        "int8 trace under a third of fp32": seconds["int8 trace"] < INT8_SHARE * seconds["fp32 trace"],
        "six personas below twice one": seconds["fp32 static, six personas"] < SIX_SHARE * seconds["fp32 static"],
    }
    return {
        "network": NETWORK,
        "image": 224,
        "target": TARGET,
        "six": SIX,
        "cpu_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "checks": checks,
        "passed": all(checks.values()),
    }


def _cold(model: Path, layer: str, targets: tuple[str, ...]) -> float:
    """Return the CPU seconds of a command a target, all its processes together; they begin with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        (cache / "emulated").mkdir(parents=True)
        for tools in ("built", "runtimes", "symbols", "wheels"):
            shutil.copytree(cache_root() / "emulated" / tools, cache / "emulated" / tools, symlinks=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for target in targets:
            _profile(model, layer, target, Path(folder), cache)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _profile(model: Path, layer: str, target: str, folder: Path, cache: Path) -> None:
    edgekit = Path(sys.executable).parent / "edgekit"
    command = [str(edgekit), "profile", str(model), "--model", layer, "--target", target, "--json"]
    environment = {**os.environ, CACHE_VARIABLE: str(cache)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}: {result.stdout[-500:]}")
