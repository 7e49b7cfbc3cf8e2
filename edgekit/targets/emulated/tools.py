"""Find the programs and libraries of this machine that emulation needs; what is missing is said with the way to it."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

QEMU = "qemu-aarch64"
QEMU_VARIABLE = "EDGEKIT_QEMU"
"""Environment variable that names the ``qemu-aarch64`` to use, where the one on the path is not the right one."""
CROSS_COMPILER = "aarch64-linux-gnu-g++"
OLDEST_QEMU = (7, 0)
"""The first version that knows the Cortex-A76, whose instruction set the newer cores have."""
GUEST_LIBRARIES = ("ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
_HOST_COMPILERS = ("gcc", "cc", "clang")
_USUAL_SYSROOTS = ("/usr/aarch64-linux-gnu", "/usr/aarch64-linux-gnu/sys-root", "/usr/aarch64-redhat-linux/sys-root")
_PACKAGES = {
    QEMU: {"apt-get": "qemu-user", "dnf": "qemu-user", "pacman": "qemu-user"},
    CROSS_COMPILER: {"apt-get": "g++-aarch64-linux-gnu", "pacman": "aarch64-linux-gnu-gcc"},
    "gcc": {"apt-get": "gcc", "dnf": "gcc", "pacman": "gcc"},
}
_INSTALL = {"apt-get": "sudo apt-get install", "dnf": "sudo dnf install", "pacman": "sudo pacman -S"}
_BUILD_QEMU = "build QEMU with --target-list=aarch64-linux-user --enable-plugins"
_NAME_QEMU = f"name another one in the environment variable {QEMU_VARIABLE}"
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program or folder that was looked for.

    Attributes:
        name: What it is called in messages.
        path: Where it is; None where it cannot be used.
        version: As it says itself; empty where it does not.
        command: How to start it, where that takes more than its path.
        problem: Why it cannot be used, and how to get it; empty where it can.
    """

    name: str
    path: Path | None = None
    version: str = ""
    command: tuple[str, ...] = ()
    problem: str = ""


def find_qemu() -> Tool:
    """Look for ``qemu-aarch64``, 7.0 or newer and built with plugins: what ``EDGEKIT_QEMU`` names, else on the path."""
    if platform.system() != "Linux":
        return Tool(
            name=QEMU,
            problem=f"qemu's user mode runs on Linux only, this is {platform.system()}: "
            "use a Linux machine, a container or a virtual machine",
        )
    named = os.environ.get(QEMU_VARIABLE)
    found = shutil.which(named or QEMU)
    if found is not None:
        return _examine_qemu(Path(found).absolute())  # a guest is started in a folder of its own
    if named:
        return Tool(
            name=QEMU,
            problem=f"{QEMU_VARIABLE} names {named}, which is no program: name a {QEMU} that was built with plugins, "
            "or unset it",
        )
    return Tool(name=QEMU, problem=f"{QEMU} is not installed: {how_to_install(QEMU)}")


def _examine_qemu(path: Path) -> Tool:
    said = _output((str(path), "--version"))
    match = re.search(r"version (\d+)\.(\d+)[\d.]*", said)
    if match is None:
        return Tool(name=QEMU, problem=f"{path} does not say its version; {how_to_install(QEMU)}, or {_NAME_QEMU}")
    version = match.group(0).removeprefix("version ")
    if (int(match[1]), int(match[2])) < OLDEST_QEMU:
        wanted = ".".join(map(str, OLDEST_QEMU))
        return Tool(
            name=QEMU,
            version=version,
            problem=f"{path} is version {version}, {wanted} or newer is needed: use a newer release of the system, "
            f"{_BUILD_QEMU}, or {_NAME_QEMU}",
        )
    if "-plugin" not in _output((str(path), "--help")):
        return Tool(
            name=QEMU,
            version=version,
            problem=f"this {QEMU} ({path}, version {version}) was built without plugins, which count instructions: "
            f"Debian 12's qemu-user package has them (those of Debian 13, of Ubuntu 24.04 and every qemu-user-static "
            f"do not), or {_BUILD_QEMU}; {_NAME_QEMU} where that is not the one on the path",
        )
    return Tool(name=QEMU, path=path, version=version)


def find_cross_compiler() -> Tool:
    """Look for the C++ compiler that makes aarch64 programs."""
    names = (CROSS_COMPILER, "g++") if platform.machine() == "aarch64" else (CROSS_COMPILER,)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        return Tool(name=CROSS_COMPILER, problem=f"{CROSS_COMPILER} is not installed: {how_to_install(CROSS_COMPILER)}")
    return Tool(name=CROSS_COMPILER, path=Path(found), command=(found,))


def find_host_compiler() -> Tool:
    """Look for the C compiler of this machine, which makes the plugin and the core simulator: gcc, cc, clang or zig."""
    found = next(filter(None, map(shutil.which, _HOST_COMPILERS)), None)
    if found is not None:
        return Tool(name="C compiler", path=Path(found), command=(found,))
    if importlib.util.find_spec("ziglang") is not None:
        interpreter = Path(sys.executable)
        # without a processor named, zig compiles for the one of this machine, and a shared cache would serve others
        command = (str(interpreter), "-m", "ziglang", "cc", "-mcpu=baseline")
        return Tool(name="C compiler", path=interpreter, command=command)
    return Tool(name="C compiler", problem=f"no C compiler was found: {how_to_install('gcc')}, or pip install ziglang")


def find_sysroot() -> Tool:
    """Look for the folder whose ``lib`` holds the guest's C and C++ libraries."""
    missing: dict[Path, list[str]] = {}
    for folder in _possible_sysroots():
        there = {path.name for path in guest_libraries(folder)}
        missing[folder] = [name for name in GUEST_LIBRARIES if name not in there]
        if not missing[folder]:
            return Tool(name="aarch64 libraries", path=folder)
    near = {folder: names for folder, names in missing.items() if (folder / "lib").is_dir() and folder != Path("/")}
    seen = "; ".join(f"{folder}/lib lacks {', '.join(names)}" for folder, names in near.items())
    return Tool(
        name="aarch64 libraries",
        problem=f"the guest's C and C++ libraries were not found{f' ({seen})' if seen else ''}: "
        f"{how_to_install(CROSS_COMPILER)}",
    )


def guest_libraries(sysroot: Path) -> tuple[Path, ...]:
    """Return the guest's C and C++ libraries that are there; the sub-folder is where an Arm Debian itself has them."""
    places = (sysroot / "lib", sysroot / "lib" / "aarch64-linux-gnu")
    found = (next((place / name for place in places if (place / name).exists()), None) for name in GUEST_LIBRARIES)
    return tuple(path for path in found if path is not None)


def how_to_install(program: str) -> str:
    """Return the command that installs a program with this system's package manager, else what Debian calls it."""
    packages = _PACKAGES[program]
    manager = next((name for name in packages if shutil.which(name)), None)
    if manager is None:
        return f"install the package that Debian and Ubuntu call {packages['apt-get']}"
    return f"{_INSTALL[manager]} {packages[manager]}"


def _possible_sysroots() -> tuple[Path, ...]:
    """The compiler knows its own; the usual places serve where it was removed after the runners were built."""
    folders = []
    compiler = find_cross_compiler()
    if compiler.path is not None:
        library = Path(_output((str(compiler.path), "-print-file-name=libc.so.6")).strip())
        if library.is_absolute():
            folders.append(Path(os.path.normpath(library)).parent.parent)
    folders += map(Path, _USUAL_SYSROOTS)
    if platform.machine() == "aarch64":
        folders.append(Path("/"))
    return tuple(dict.fromkeys(folders))


@lru_cache(maxsize=64)
def _output(command: tuple[str, ...]) -> str:
    """Return what a program prints, asked once; nothing where it cannot be started or never ends."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
