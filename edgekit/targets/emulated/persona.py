"""The face of a processor core that the guest sees: ``/proc/cpuinfo``, ``/sys/devices/system/cpu`` and ``-cpu``.

``qemu-aarch64 -L ROOT`` reads a file below ROOT where there is one. Runtimes ask those files which core they run on,
and choose their kernels by its part number and instruction sets. A persona shows one kind of core only, four times:
were there two kinds, the processor of this machine that the guest happens to run on would decide on the kernels.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.store.atomic import output_errors
from edgekit.store.cache import cache_root

if TYPE_CHECKING:
    from edgekit.targets.emulated.cores import CoreTable
    from edgekit.targets.emulated.setup import Toolchain

PROCESSORS = 4
_CPU = "sys/devices/system/cpu"
_VARIANT, _REVISION = 1, 0
_LOWEST_KHZ = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """A guest whose every processor is one kind of core.

    Attributes:
        core: Name of the core table.
        qemu_cpu: What ``qemu-aarch64 -cpu`` is told.
        root: What ``qemu-aarch64 -L`` is told: holds ``proc``, ``sys`` and ``lib``.
        key: Digest of all its files and of ``qemu_cpu``: runs of two personas with one key are the same run.
    """

    core: str
    qemu_cpu: str
    root: Path
    key: str


def make_persona(core: CoreTable, toolchain: Toolchain) -> Persona:
    """Write a persona's files into the cache folder, once.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    files = persona_files(core)
    qemu_cpu = f"{core.qemu_cpu},midr={main_id(core):#x}"
    key = _digest([qemu_cpu, *(f"{name}\0{text}" for name, text in sorted(files.items()))])
    root = cache_root() / "emulated" / "personas" / f"{key}-{_digest([str(toolchain.sysroot)])[:8]}"
    if not root.is_dir():
        _write(root, files, toolchain.sysroot)
    return Persona(core=core.name, qemu_cpu=qemu_cpu, root=root, key=key)


def main_id(core: CoreTable) -> int:
    """Return the Main ID Register of the core: what ``mrs x0, midr_el1`` gives.

    From version 8.2 on, qemu makes ``/proc/cpuinfo`` out of this register and ignores the file below ``-L``.
    """
    return core.implementer << 24 | _VARIANT << 20 | 0xF << 16 | core.part << 4 | _REVISION


def persona_files(core: CoreTable) -> dict[str, str]:
    """Return what the guest reads of its processors: path below the root -> text."""
    everyone = f"0-{PROCESSORS - 1}"
    files = {
        "proc/cpuinfo": "\n".join(_cpuinfo(core, index) for index in range(PROCESSORS)),
        "etc/ld.so.cache": "",  # that of this machine names libraries of another architecture
        f"{_CPU}/possible": everyone,
        f"{_CPU}/present": everyone,
        f"{_CPU}/online": everyone,
        f"{_CPU}/kernel_max": str(PROCESSORS - 1),
    }
    for index in range(PROCESSORS):
        processor = {**_processor(core, index), **_caches(core, index)}
        files |= {f"{_CPU}/cpu{index}/{name}": text for name, text in processor.items()}
    return {name: f"{text}\n" if text else "" for name, text in files.items()}


def _cpuinfo(core: CoreTable, index: int) -> str:
    return (
        f"processor\t: {index}\nBogoMIPS\t: 38.40\nFeatures\t: {' '.join(core.features)}\n"
        f"CPU implementer\t: {core.implementer:#04x}\nCPU architecture: 8\nCPU variant\t: {_VARIANT:#x}\n"
        f"CPU part\t: {core.part:#05x}\nCPU revision\t: {_REVISION}\n"
    )


def _processor(core: CoreTable, index: int) -> dict[str, str]:
    everyone = f"0-{PROCESSORS - 1}"
    return {
        "cpufreq/cpuinfo_max_freq": str(round(core.clock_mhz * 1000)),
        "cpufreq/cpuinfo_min_freq": str(_LOWEST_KHZ),
        "topology/physical_package_id": "0",
        "topology/core_id": str(index),
        "topology/core_siblings_list": everyone,
        "topology/cluster_cpus_list": everyone,
        "topology/package_cpus_list": everyone,
        "regs/identification/midr_el1": f"{main_id(core):#018x}",
    }


def _caches(core: CoreTable, index: int) -> dict[str, str]:
    """Describe the caches as Linux does; with a third level, the second is the core's own."""
    own, everyone = str(index), f"0-{PROCESSORS - 1}"
    levels: list[tuple[int, str, int, str]] = [
        (1, "Data", core.l1d_kib, own),
        (1, "Instruction", core.l1i_kib, own),
        (2, "Unified", core.l2_kib, own if core.l3_kib else everyone),
        (3, "Unified", core.l3_kib or 0, everyone),
    ]
    files = {}
    for number, (level, kind, kib, shared) in enumerate(entry for entry in levels if entry[2]):
        for name, text in {
            "level": str(level),
            "type": kind,
            "size": f"{kib}K",
            "shared_cpu_list": shared,
            "coherency_line_size": "64",
            "ways_of_associativity": "4",
        }.items():
            files[f"cache/index{number}/{name}"] = text
    return files


def _write(root: Path, files: Mapping[str, str], sysroot: Path) -> None:
    with output_errors(root.parent, "name another cache folder in EDGEKIT_CACHE_DIR"):
        root.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".persona-", dir=root.parent))
        try:
            for name, text in files.items():
                path = staging / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="ascii")
            (staging / "lib").symlink_to(sysroot / "lib")
            staging.chmod(0o755)
            try:
                staging.rename(root)
            except OSError:
                if not root.is_dir():  # else another process was faster, and wrote the same
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
