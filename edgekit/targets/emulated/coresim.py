"""Start coresim, the host program that schedules A64 code on described cores (``targets/native/coresim``)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import ToolError
from edgekit.targets.emulated.cores import CoreTable, core_text
from edgekit.targets.emulated.place import CorePlace


@dataclass(frozen=True, slots=True)
class PlacedCore:
    """A core on a device: what one simulation is of."""

    core: CoreTable
    place: CorePlace


def core_arguments(cores: Sequence[PlacedCore], work_dir: Path) -> list[str]:
    """Write one file for each core into ``work_dir`` and return coresim's arguments for them, in order."""
    arguments: list[str] = []
    for index, placed in enumerate(cores):
        path = work_dir / f"{index}-{placed.core.name}.core"
        path.write_text(core_text(placed.core, placed.place), encoding="ascii")
        arguments += ["--core", str(path)]
    return arguments


def run_coresim(coresim: Path, arguments: Sequence[str], *, seconds: float) -> None:
    """Run coresim to its end.

    Raises:
        ToolError: It failed or ran past the limit; the message holds what it said.
    """
    try:
        command = [str(coresim), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"The core simulator was stopped after {seconds:.0f} s: {coresim} {arguments[0]}") from error
    except OSError as error:
        raise ToolError(f"The core simulator {coresim} cannot be started: {error}") from error
    if done.returncode != 0:
        raise ToolError(f"The core simulator failed with code {done.returncode}: {done.stderr.strip()[-2000:]}")
