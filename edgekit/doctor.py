"""What this machine can and cannot do: packages of each extra, formats, devices, memory, disk, processor, GPU.

Nothing heavy is imported: versions come from the installed packages' metadata, the rest from the system.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from edgekit.formats import format_specs
from edgekit.records import SCHEMA_VERSION
from edgekit.store.cache import cache_root
from edgekit.targets import Diagnosis, diagnose, list_devices
from edgekit.targets.emulated.setup import Piece, pieces
from edgekit.targets.host.machine import describe_machine

_GROUPS_OF_EXTRAS = ("all", "dev")
_CPU_FLAGS = (
    *("avx", "f16c", "fma", "avx2", "avx512f", "avx512_bf16", "avx_vnni", "avx512_vnni", "amx_int8"),  # x86
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sme"),  # Arm
)
_TOOLS = ("adb", "nvidia-smi", "xcrun")
_NAMED_DEVICES = 3
LOW_DISK_BYTES = 2 * 1024**3
"""Free space in the cache folder below which a build is likely to fill the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFact:
    """A package that an extra asks for. ``installed`` is its version, None where it is missing."""

    name: str
    required: str
    installed: str | None
    satisfied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraFact:
    """One pip extra of edgekit."""

    name: str
    satisfied: bool
    packages: tuple[PackageFact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFact:
    """One way of a format to execute: whether it can be exported and run on this machine, and why not."""

    format: str
    backend: str
    exports: bool
    runs: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """All of it.

    Attributes:
        machine: As in profiles: cpu, cores, governor, load, memory, system.
        cpu_flags: Instruction sets that inference kernels use.
        gpu: What training would run on, in words.
        disk_free_bytes: In the cache folder.
        tools: Programs on the path, None where missing.
        emulation: What it takes to emulate a phone, found or not.
        devices: A diagnosis of each device file that is sound.
        problems: What to do something about.
    """

    schema_version: int = SCHEMA_VERSION
    edgekit: str
    machine: dict[str, str]
    cpu_flags: tuple[str, ...]
    gpu: str
    cache_folder: Path
    disk_free_bytes: int
    extras: tuple[ExtraFact, ...]
    backends: tuple[BackendFact, ...]
    tools: dict[str, str | None]
    emulation: tuple[Piece, ...]
    devices: tuple[Diagnosis, ...]
    problems: tuple[str, ...]


def examine() -> DoctorReport:
    """Look at everything; takes well under a second."""
    extras = _extras()
    cache = cache_root()
    free_bytes = shutil.disk_usage(_existing_parent(cache)).free
    listings = list_devices()
    devices = tuple(diagnose(listing.device) for listing in listings if listing.device is not None)
    problems = [
        f"extra {extra.name!r} is not whole ({', '.join(_complaint(p) for p in extra.packages if not p.satisfied)}): "
        f"pip install 'edgekit[{extra.name}]'"
        for extra in extras
        if not extra.satisfied
    ]
    problems += [f"device file: {listing.problem}" for listing in listings if listing.problem is not None]
    problems += _device_problems(devices)
    if free_bytes < LOW_DISK_BYTES:
        problems.append(f"only {free_bytes / 1024**3:.1f} GiB are free in {cache}; set EDGEKIT_CACHE_DIR elsewhere")
    return DoctorReport(
        edgekit=importlib.metadata.version("edgekit"),
        machine=describe_machine(),
        cpu_flags=_cpu_flags(),
        gpu=_gpu(),
        cache_folder=cache,
        disk_free_bytes=free_bytes,
        extras=extras,
        backends=_backends({extra.name: extra.satisfied for extra in extras}),
        tools={tool: shutil.which(tool) for tool in _TOOLS},
        emulation=pieces(),
        devices=devices,
        problems=tuple(problems),
    )


def _extras() -> tuple[ExtraFact, ...]:
    packages: dict[str, list[PackageFact]] = defaultdict(list)
    for line in importlib.metadata.requires("edgekit") or ():
        requirement = Requirement(line)
        extra = _extra_of(requirement)
        if extra is not None and extra not in _GROUPS_OF_EXTRAS:
            packages[extra].append(_package(requirement))
    return tuple(
        ExtraFact(name=name, satisfied=all(package.satisfied for package in found), packages=tuple(found))
        for name, found in sorted(packages.items())
    )


def _device_problems(devices: Iterable[Diagnosis]) -> list[str]:
    """Say each problem once, with the devices that have it: all emulated ones need the same tools."""
    names: dict[str, list[str]] = defaultdict(list)
    for device in devices:
        for problem in device.problems:
            names[problem].append(device.device)
    return [f"device {_some(having)}: {problem}" for problem, having in names.items()]


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_DEVICES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_NAMED_DEVICES])} and {more} more"


def _extra_of(requirement: Requirement) -> str | None:
    """Return the extra that a requirement belongs to: the one with which its marker holds, None for a plain one."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return None
    names = importlib.metadata.metadata("edgekit").get_all("Provides-Extra") or []
    return next((name for name in names if requirement.marker.evaluate({"extra": name})), None)


def _package(requirement: Requirement) -> PackageFact:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return PackageFact(
        name=requirement.name,
        required=str(requirement.specifier),
        installed=installed,
        satisfied=installed is not None and requirement.specifier.contains(installed, prereleases=True),
    )


def _complaint(package: PackageFact) -> str:
    found = "missing" if package.installed is None else f"is {package.installed}, needs {package.required}"
    return f"{package.name} {found}"


def _backends(satisfied: dict[str, bool]) -> tuple[BackendFact, ...]:
    facts = []
    for spec in format_specs().values():
        exports = satisfied.get(spec.extra, False)
        missing = None if exports else f"pip install 'edgekit[{spec.extra}]'"
        facts += [
            BackendFact(
                format=spec.name,
                backend=backend.name,
                exports=exports,
                runs=exports and backend.not_here is None,
                reason=missing or backend.not_here,
            )
            for backend in spec.backends
        ]
    return tuple(facts)


def _cpu_flags() -> tuple[str, ...]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            present = set(value.split())
            return tuple(flag for flag in _CPU_FLAGS if flag in present)
    return ()


def _gpu() -> str:
    driver = Path("/proc/driver/nvidia/version").is_file()
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = ""
    if platform.system() == "Darwin":
        return "Apple GPU, not used: training runs on the CPU"
    if not driver:
        return "none: training runs on the CPU"
    if torch.endswith("+cpu"):
        return f"an NVIDIA driver is there, but torch {torch} is built without CUDA: training runs on the CPU"
    return "an NVIDIA driver is there: training runs on CUDA"


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
