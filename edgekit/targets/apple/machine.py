"""What this machine can do for an Apple chip: measure it where it has the chip, predict elsewhere. Light."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.records import FormatName
from edgekit.targets.apple.bands import bands_path
from edgekit.targets.apple.spec import AppleDevice
from edgekit.targets.schema import Device, Diagnosis

_SYSCTL = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
_TIMEOUT_S = 10
_MODEL_CODE = "roofline.py"
EMULATED_SIBLING = "iphone-12"
"""The emulated device whose processor is that of A14 and M1."""


@cache
def chip_here() -> str | None:
    """Return what macOS calls the chip of this machine (``Apple M1 Pro``); None on other systems."""
    if platform.system() != "Darwin":
        return None
    try:
        answer = subprocess.run(_SYSCTL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def is_measured(device: AppleDevice) -> bool:
    """Say whether this machine is a Mac with the very chip, so that a clock answers instead of a model."""
    return chip_here() == device.title


def this_machine() -> str:
    """Name this machine in a sentence: ``a Mac with Apple M3``, ``Linux``."""
    chip = chip_here()
    return f"a Mac with {chip}" if chip else platform.system()


def why_not(device: Device, format_name: FormatName, _backend: str) -> str | None:
    """Return why an artifact cannot be profiled on a chip from here; None: it can."""
    if format_name == "coreml" or not isinstance(device, AppleDevice) or is_measured(device):
        return None
    return (
        f"only Core ML artifacts are predicted for {device.title}; others are measured on a Mac that has the chip, and "
        f"this is {this_machine()}. The target {EMULATED_SIBLING} emulates the processor of A14 and M1, and "
        "ssh:user@mac reaches a Mac"
    )


def diagnose_apple(device: Device) -> Diagnosis:
    """Say whether profiles on a chip are measured or predicted here; one of the two always works."""
    if not isinstance(device, AppleDevice):
        return Diagnosis(device=device.name, usable=False, facts={}, problems=("expected a device of kind 'apple'",))
    facts = describe_chip(device)
    if is_measured(device):
        return Diagnosis(device=device.name, usable=True, facts={**facts, "profiles": "measured, on this Mac"})
    return Diagnosis(
        device=device.name,
        usable=True,
        facts={**facts, "profiles": "predicted from published figures, Core ML artifacts only"},
        problems=(
            f"not measured here: this is {this_machine()}, not a Mac with {device.title}; "
            "--target ssh:user@mac measures on one",
        ),
    )


def describe_chip(device: AppleDevice) -> dict[str, str]:
    """Return the figures that a prediction rests on, for people, and their digest."""
    engine, gpu, cpu = device.neural_engine, device.gpu, device.cpu
    int8 = f", {engine.gops_int8 / 1e3:g} TOPS int8" if engine.gops_int8 else ""
    facts = {
        "cpu": f"{cpu.performance_cores} + {cpu.efficiency_cores} cores, up to {cpu.clock_mhz:g} MHz",
        "gpu": f"{gpu.cores} cores, {gpu.gflops_fp32 / 1e3:.3g} TFLOP/s fp32",
        "neural_engine": f"{engine.cores} cores, {engine.gflops_fp16 / 1e3:g} TFLOP/s fp16{int8}",
        "memory": f"{device.memory.technology}, {device.memory.bandwidth_gb_s:g} GB/s",
        "chip": device.title,
        "found_in": ", ".join(device.devices),
        "figures": figures_digest(device),
        "note": device.note or "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def figures_digest(device: AppleDevice) -> str:
    """Return the digest of every figure of a chip and of the model that makes a time of them."""
    sections = device.model_dump(mode="json", include={"cpu", "gpu", "neural_engine", "memory", "system_cache_kib"})
    return _digest(json.dumps(sections, sort_keys=True).encode(), _model_code())[:12]


def decided_by(_device: Device) -> dict[str, Any]:
    """Return what a profile depends on besides the artifact and the device file, JSON-ready."""
    bands = bands_path()
    return {
        "chip": chip_here(),
        "model": _digest(_model_code()),
        "bands": _digest(bands.read_bytes()) if bands.is_file() else "",
    }


@cache
def _model_code() -> bytes:
    return (Path(__file__).parent / _MODEL_CODE).read_bytes()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
