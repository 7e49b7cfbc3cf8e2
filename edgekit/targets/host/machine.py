"""Describe this machine: what a reader needs to judge its figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from edgekit.errors import TargetError
from edgekit.profile.affinity import available_cpus, pinned
from edgekit.profile.memory import PeakMemory
from edgekit.targets.host.spec import HostDevice
from edgekit.targets.schema import Device, Diagnosis
from edgekit.units import format_size

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
BUSY_LOAD_SHARE = 0.5
"""Load average a core above which figures are said to be noisy."""


def describe_machine() -> dict[str, str]:
    """Return what is known of this machine: cpu, cores, governor, load, memory, system; unknown facts are left out."""
    physical = psutil.cpu_count(logical=False)
    facts = {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": f"{len(available_cpus())} usable of {os.cpu_count()} logical, {physical or 'unknown'} physical",
        "governor": _governor(),
        "load_average": _load_average(),
        "memory": format_size(psutil.virtual_memory().total),
        "system": f"{platform.system()} {platform.release()}",
        "virtual": "yes" if "hypervisor" in _cpuinfo("flags").split() else "",
        "python": platform.python_version(),
    }
    return {name: fact for name, fact in facts.items() if fact}


def diagnose_host(device: Device) -> Diagnosis:
    """Say whether this machine can be timed, and what would make its figures worse."""
    facts = describe_machine()
    problems = []
    usable = True
    try:
        with pinned(1, device.cpus if isinstance(device, HostDevice) else None) as cpus:
            facts["pinning"] = f"cores {list(cpus)}" if cpus else "not possible on this system"
    except TargetError as error:
        usable = False
        problems.append(str(error))
    with PeakMemory() as memory:
        facts["peak_memory"] = memory.method
    if facts.get("governor", "performance") != "performance":
        problems.append(
            f"the frequency governor is {facts['governor']!r}, so clocks vary; "
            "'cpupower frequency-set -g performance' fixes them"
        )
    problems.extend(busy_notes())
    return Diagnosis(device=device.name, usable=usable, facts=facts, problems=tuple(problems))


def busy_notes() -> tuple[str, ...]:
    """Say that other work is running now, if so: it makes figures noisy, and all of them too high."""
    load, cores = psutil.getloadavg()[0], len(available_cpus())
    if load <= BUSY_LOAD_SHARE * cores:
        return ()
    return (
        f"busy: the load average is {load:.1f} on {cores} cores, so figures are noisy and too high; close other work",
    )


def _cpuinfo(key: str) -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _governor() -> str:
    return _GOVERNOR.read_text(encoding="ascii").strip() if _GOVERNOR.is_file() else ""


def _load_average() -> str:
    return " ".join(f"{load:.2f}" for load in psutil.getloadavg())
