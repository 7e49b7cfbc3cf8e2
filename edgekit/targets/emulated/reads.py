"""What decides an emulated profile besides the artifact: tools, core table, model code, stored measurements. Light."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.errors import UnsupportedError
from edgekit.targets.devices import packaged_targets
from edgekit.targets.emulated.bands import bands_path
from edgekit.targets.emulated.calibration import Layer, read_anchors
from edgekit.targets.emulated.cores import core_text, load_core
from edgekit.targets.emulated.place import place_of
from edgekit.targets.emulated.setup import toolchain
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.targets.schema import Device

_MODEL_CODE: dict[Layer, tuple[str, ...]] = {
    "static": ("decode.py", "mnemonics.py", "static_model.py"),
    "trace": ("decode.py", "mnemonics.py", "trace_model.py"),
}
"""Modules beside this one that turn counts into time, besides the core simulator's sources."""


def decided_by(device: Device) -> dict[str, Any]:
    """Return what a profile on this device depends on, JSON-ready; it changes whenever the profile might.

    Raises:
        TargetError: The core table or the stored measurements of the device cannot be read.
    """
    if not isinstance(device, EmulatedDevice):
        return {}
    try:
        tools = toolchain().key
    except UnsupportedError:
        tools = ""  # the profile itself will say what is missing
    bands = bands_path()
    return {
        "tools": tools,
        "persona": core_digest(device),
        "estimators": [estimator_of(device, layer) for layer in _MODEL_CODE],
        "bands": _digest([bands.read_bytes()]) if bands.is_file() else "",
        "anchors": [anchor.model_dump(mode="json") for anchor in read_anchors(device.name)],
    }


def core_digest(device: EmulatedDevice) -> str:
    """Return the digest of the core table that stands for a device's primary cluster, sources left out."""
    table = load_core(device.primary_cluster.core)
    facts = table.model_dump(mode="json", exclude={"sources", "title", "extends"})
    return _digest([json.dumps(facts, sort_keys=True).encode()])[:12]


def estimator_of(device: EmulatedDevice, layer: Layer) -> str:
    """Return the digest of what makes a time of counts: the core at its place as the model sees it, and the code.

    Raises:
        TargetError: The core table cannot be read.
    """
    core = core_text(load_core(device.primary_cluster.core), place_of(device))
    return _digest([layer.encode(), core.encode(), _code_digest(layer).encode()])[:16]


@cache
def _code_digest(layer: Layer) -> str:
    beside = Path(__file__).parent
    code = [beside / name for name in _MODEL_CODE[layer]]
    simulator = sorted((packaged_targets() / "native" / "coresim").glob("*.[ch]"))
    return _digest(path.read_bytes() for path in (*code, *simulator) if path.is_file())


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
