"""targets/error_bands.json: what the error band that edgekit prints with every estimate rests on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.errors import Estimate, by_core
from benchmarks.fidelity.predictions import LAYERS
from edgekit.targets.devices import packaged_targets

METHOD = (
    "published single-threaded rows of XNNPACK and ncnn that nobody looked at while the models were built "
    "(benchmarks/fidelity/held_out.yaml); no core table was fitted to any row, so leaving one device out changes "
    "nothing but which rows are counted; anchored: every other network of a device, after its "
    "MobileNet v1 row scaled it"
)


def write_bands(estimates: Sequence[Estimate]) -> None:
    """Write the errors of held-out rows, core by core; cores and layers without a row are left out."""
    held_out = [each for each in estimates if each.standing == "held out"]
    cores: dict[str, dict[str, dict[str, Any]]] = {}
    for layer in LAYERS:
        for name, anchored in (("unanchored", False), ("anchored", True)):
            for core, errors in by_core(held_out, layer, anchored=anchored).items():
                cores.setdefault(core, {}).setdefault(layer, {})[name] = errors
    document = {"schema_version": 1, "method": METHOD, "cores": {core: cores[core] for core in sorted(cores)}}
    (packaged_targets() / "error_bands.json").write_text(json.dumps(document, indent=2) + "\n")
