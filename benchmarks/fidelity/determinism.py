"""Are counts inside the runtime's library the same in every run: other folders, addresses randomised, two runtimes?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.fidelity import guests
from edgekit.targets.emulated.counts import read_counts
from edgekit.targets.emulated.persona import Persona
from edgekit.targets.emulated.setup import Toolchain

RUNS = 10
NETWORK = "mobilenet_v3_small"
RANDOMIZE = Path("/proc/sys/kernel/randomize_va_space")


def measure(toolchain: Toolchain, persona: Persona) -> dict[str, Any]:
    """Run each runtime ``RUNS`` times, each time from a folder of another name and depth."""
    models = {"tflite": guests.xnnpack_model(NETWORK), "executorch": executorch_model(NETWORK)}
    found = {name: _repeat(toolchain, persona, name, model) for name, model in models.items()}
    return {
        "network": NETWORK,
        "persona": persona.core,
        "runs": RUNS,
        "address_randomisation": RANDOMIZE.read_text().strip() if RANDOMIZE.is_file() else "unknown",
        "runtimes": found,
        "passed": all(result["distinct_counts"] == 1 for result in found.values()),
    }


def executorch_model(network: str) -> Path:
    """Return the network as an ExecuTorch program, converted from its TFLite file once."""
    path = guests.models() / f"{network}_fp32.pte"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            edgekit = Path(sys.executable).parent / "edgekit"
            source = guests.xnnpack_model(network)
            command = [str(edgekit), "convert", str(source), "--to", "executorch", "-o", f"{folder}/out", "--json"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            found = list(Path(folder).glob("out/artifacts/executorch/*.pte"))
            if not found:
                raise RuntimeError(f"no ExecuTorch program of {source}: {json.dumps(result.stderr[-500:])}")
            shutil.copyfile(found[0], path)
    return path


def _repeat(toolchain: Toolchain, persona: Persona, format_name: str, model: Path) -> dict[str, Any]:
    prints, bases, instructions, whole = set(), set(), set(), set()
    library = guests.LIBRARIES[format_name]
    for index in range(RUNS):
        with tempfile.TemporaryDirectory(prefix="x" * (1 + 3 * index)) as folder:
            place = Path(folder, *["deeper"] * (index % 3))
            place.mkdir(parents=True, exist_ok=True)
            copy = place / f"model{index}{model.suffix}"
            shutil.copyfile(model, copy)
            program = guests.artifact_program(toolchain, format_name, copy, place / "run")
            counts = read_counts(guests.run_fresh(toolchain, persona, program, place / "run").run.counts)
        prints.add(counts.fingerprint(library))
        bases.add(next(module.base for module in counts.modules if module.name == library))
        instructions.add(counts.instructions_by_module()[library])
        whole.add(counts.steady_instructions)
    return {
        "library": library,
        "library_instructions": sorted(instructions),
        "distinct_counts": len(prints),
        "distinct_load_addresses": len(bases),
        "whole_process_spread": round(max(whole) / min(whole) - 1, 9),
    }
