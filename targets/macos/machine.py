"""What the machine is that a measurement is taken on, and what a process on it holds in memory.

Part of ``measure.py``, which is copied to a Mac; Python 3.9 or newer, the standard library only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import resource
import subprocess
from pathlib import Path

MAC = platform.system() == "Darwin"
PACKAGES = {
    "numpy": "numpy",
    "coremltools": "coremltools",
    "ai_edge_litert": "ai-edge-litert",
    "executorch": "executorch",
    "onnxruntime": "onnxruntime",
}
"""Module -> the package that holds it."""


def said(*command):
    """Return what a system tool prints, stripped; empty where there is no such tool or it fails."""
    places = dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/bin:/bin:/usr/sbin:/sbin", LC_ALL="C")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=places, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _sysctl(name):
    return said("sysctl", "-n", name)


def macos_version():
    """Return ``(14, 5)``; empty elsewhere."""
    return tuple(int(part) for part in platform.mac_ver()[0].split(".")[:2] if part.isdigit())


def machine_facts():
    """Return what this machine is; facts that the system does not tell are left out."""
    facts = _mac_facts() if MAC else _linux_facts()
    facts["architecture"] = platform.machine()
    facts["python"] = platform.python_version()
    facts.update({package: package_version(package) for module, package in PACKAGES.items() if is_installed(module)})
    return {name: value for name, value in facts.items() if value}


def _mac_facts():
    fast, slow = _sysctl("hw.perflevel0.physicalcpu"), _sysctl("hw.perflevel1.physicalcpu")
    split = f" ({fast} performance, {slow} efficiency)" if fast and slow else ""
    memory = _sysctl("hw.memsize")
    return {
        "model": _sysctl("hw.model"),
        "chip": _sysctl("machdep.cpu.brand_string"),
        "cores": _sysctl("hw.physicalcpu") + split,
        "memory": f"{int(memory) / (1 << 30):g} GiB" if memory.isdigit() else "",
        "system": f"macOS {platform.mac_ver()[0]}",
        "system_build": said("sw_vers", "-buildVersion"),
        "virtual": "yes" if _sysctl("kern.hv_vmm_present") == "1" else "",
    }


def _linux_facts():
    names = [line.partition(":")[2] for line in _read_text("/proc/cpuinfo").splitlines() if "model name" in line]
    return {
        "model": platform.node(),
        "chip": names[0].strip() if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
    }


def conditions():
    """Return what makes figures better or worse just now."""
    found = {"load_average": f"{os.getloadavg()[0]:.2f}"}
    if MAC:
        source = said("pmset", "-g", "batt")
        found["power"] = source.split("'")[1] if source.count("'") >= 2 else ""
        modes = dict(line.split()[:2] for line in said("pmset", "-g").splitlines() if len(line.split()) >= 2)
        low = modes.get("lowpowermode", modes.get("powermode", ""))
        found["low_power_mode"] = {"0": "off", "1": "on"}.get(low, low)
        found["thermal"] = thermal_state(said("pmset", "-g", "therm"))
    return {name: value for name, value in found.items() if value}


def thermal_state(text):
    """Read ``pmset -g therm``: ``nominal``, or the limits that the system has set (``CPU_Speed_Limit 60``)."""
    pairs = [line.replace("=", " ").split() for line in text.splitlines()]
    limits = [f"{pair[0]} {pair[1]}" for pair in pairs if len(pair) == 2 and pair[0].endswith("_Limit")]
    lowered = [limit for limit in limits if not limit.endswith(" 100")]
    return ", ".join(lowered) if lowered else "nominal" if text else ""


def is_installed(module):
    """Say whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def package_version(package):
    """Return the version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _read_text(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def memory_now():
    """Return ``(now, highest so far, method)`` of this process in bytes.

    On macOS the physical footprint, which is what Xcode and Activity Monitor show and what iOS kills for: fields 7 and
    28 after the identifier of ``struct rusage_info_v4`` (sys/resource.h of XNU). It leaves out what the Neural Engine's
    driver holds in other processes.
    """
    if MAC:
        buffer = (ctypes.c_uint64 * 64)()
        if ctypes.CDLL("/usr/lib/libSystem.B.dylib").proc_pid_rusage(os.getpid(), 4, ctypes.byref(buffer)) == 0:
            return buffer[2 + 7], buffer[2 + 28], "phys_footprint"
    status = dict(line.partition(":")[::2] for line in _read_text("/proc/self/status").splitlines())
    if "VmRSS" in status and "VmHWM" in status:
        now, highest = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, highest, "resident (VmHWM)"
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if MAC else 1024)
    return highest, highest, "ru_maxrss"


def reset_peak():
    """Start the highest mark of memory anew where the system can (Linux: 5 into ``clear_refs``, see proc(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return
