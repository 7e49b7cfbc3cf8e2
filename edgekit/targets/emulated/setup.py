"""The tools that emulation needs, found or made: qemu, the guest's libraries, the runtimes, runners and plugin."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgekit.errors import EdgekitError, UnsupportedError
from edgekit.store.atomic import output_errors
from edgekit.store.cache import cache_root
from edgekit.targets.emulated.build import Build, compile_build, coresim_build, plugin_build, runner_build
from edgekit.targets.emulated.fetch import RUNTIMES, Runtime, Unpacked, fetch, find_unpacked, installed_version
from edgekit.targets.emulated.tools import (
    Tool,
    find_cross_compiler,
    find_host_compiler,
    find_qemu,
    find_sysroot,
    guest_libraries,
)

SETUP_COMMAND = "edgekit targets setup emulated"
_WAY_OUT = f"install what is missing, then run `{SETUP_COMMAND}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Everything that it takes to run an artifact on an emulated phone.

    Attributes:
        qemu: ``qemu-aarch64`` with plugin support.
        qemu_version: Such as ``7.2.22``.
        sysroot: Folder with the guest's C and C++ libraries (``lib/ld-linux-aarch64.so.1`` below it).
        plugin: The counting plugin, a shared library of this machine.
        coresim: The core simulator, a program of this machine.
        runners: Runtime (``litert``, ``executorch``, ``onnxruntime``) -> aarch64 program. One that could not be built
            is not there.
        libraries: Runtime -> folders with its aarch64 shared libraries, for ``LD_LIBRARY_PATH`` on the guest.
        versions: Runtime -> its version.
        key: Digest of everything above: what results are cached by.
    """

    qemu: Path
    qemu_version: str
    sysroot: Path
    plugin: Path
    coresim: Path
    runners: dict[str, Path]
    libraries: dict[str, tuple[Path, ...]]
    versions: dict[str, str]
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One thing that emulation needs.

    Attributes:
        name: For people.
        found: What was found; empty where nothing was.
        problem: What is wrong and how to get it; empty where nothing is.
        ready: Whether it can be used now.
        needed: Whether nothing at all can be emulated without it; a runtime's runner is needed for that runtime only.
    """

    name: str
    found: str = ""
    problem: str = ""
    ready: bool
    needed: bool = True


def toolchain() -> Toolchain:
    """Return the tools that are ready; fetches and builds nothing.

    Raises:
        UnsupportedError: Something is missing; the message names each piece and how to get it.
    """
    missing = [piece.problem for piece in pieces() if piece.needed and piece.problem]
    if missing:
        raise UnsupportedError("emulation on this machine", reason="; ".join(missing), instead=_WAY_OUT)
    qemu, sysroot = find_qemu(), find_sysroot()
    if qemu.path is None or sysroot.path is None:  # removed since the line above
        raise UnsupportedError("emulation on this machine", reason=qemu.problem or sysroot.problem, instead=_WAY_OUT)
    ready = [found for runtime in RUNTIMES if (found := find_unpacked(runtime)) is not None]
    runners = {found.runtime.name: path for found in ready if (path := runner_build(found).path).is_file()}
    plugin, coresim = plugin_build().path, coresim_build().path
    return Toolchain(
        qemu=qemu.path,
        qemu_version=qemu.version,
        sysroot=sysroot.path,
        plugin=plugin,
        coresim=coresim,
        runners=runners,
        libraries={found.runtime.name: (found.folder,) for found in ready},
        versions={found.runtime.name: found.version for found in ready},
        key=_key(qemu.version, sysroot.path, (plugin, coresim, *runners.values()), ready),
    )


def _key(qemu_version: str, sysroot: Path, built: Iterable[Path], ready: Iterable[Unpacked]) -> str:
    """Return the digest of what decides a count; the guest's C library is part of it, for kernels call it."""
    digest = hashlib.sha256(qemu_version.encode())
    for path in built:
        digest.update(path.parent.name.encode())  # it ends with a digest of the sources
    for unpacked in ready:
        digest.update(unpacked.sha256.encode())
    for library in guest_libraries(sysroot):
        digest.update(library.read_bytes())
    return digest.hexdigest()[:16]


def set_up(report: Callable[[str], None], *, offline: bool = False) -> Toolchain:
    """Fetch and build what is missing. A runtime that fails is reported and left out; the others go on.

    Args:
        report: Called with one line before each thing that is fetched or built, and where one fails.
        offline: Fetch nothing; use what was fetched before.

    Raises:
        UnsupportedError: Something is missing that cannot be fetched or built here; the message says what to install.
    """
    with _alone(report):
        for build in (plugin_build(), coresim_build()):
            _try(partial(_build, build, find_host_compiler(), report), report)
        if not any(tool.problem for tool in (find_qemu(), find_sysroot(), find_cross_compiler())):
            for runtime in RUNTIMES:  # otherwise nothing is fetched, for it could not be used
                _try(partial(_set_up_runtime, runtime, report, offline), report)
    tools = toolchain()
    for name in tools.libraries:
        _try(partial(_name_functions, name, tools), report)
    return tools


def set_up_kind(report: Callable[[str], None], *, offline: bool = False) -> tuple[str, ...]:
    """Set up as ``edgekit targets setup`` does, and return what is still missing, in words; nothing where all is there.

    Args:
        report: Called with one line before each thing that is done.
        offline: Fetch nothing.
    """
    with suppress(UnsupportedError):  # it names the same pieces
        set_up(report, offline=offline)
    return tuple(piece.problem for piece in pieces() if piece.problem)


def pieces() -> tuple[Piece, ...]:
    """Look for everything that emulation needs; fetches and builds nothing."""
    return (
        _tool_piece(find_qemu()),
        _tool_piece(find_sysroot()),
        _build_piece("counting plugin", plugin_build(), find_host_compiler()),
        _build_piece("core simulator", coresim_build(), find_host_compiler()),
        *map(_runtime_piece, RUNTIMES),
    )


def _try(action: Callable[[], object], report: Callable[[str], None]) -> None:
    try:
        action()
    except EdgekitError as error:
        report(str(error))


def _build(build: Build, compiler: Tool, report: Callable[[str], None]) -> None:
    if build.path.is_file():
        return
    if not compiler.command:
        return  # what is still missing is said at the end, with the way to it
    report(f"compiling {build.name} with {' '.join(compiler.command)}")
    compile_build(build, compiler.command)


def _set_up_runtime(runtime: Runtime, report: Callable[[str], None], offline: bool) -> None:
    version = installed_version(runtime)
    if version is None:
        report(f"{runtime.distribution} is not installed here, so its guest is left out")
        return
    unpacked = fetch(runtime, version, report, offline=offline)
    _build(runner_build(unpacked), find_cross_compiler(), report)


def _name_functions(runtime: str, tools: Toolchain) -> None:
    """Find the names of a runtime's functions, a second's work, once for all profiles: the cache folder keeps them."""
    from edgekit.targets.emulated.symbols import operator_watches  # with numpy, which nothing else here needs

    operator_watches(runtime, tools.libraries[runtime], twin_folders=tools.libraries.get("litert", ()))


@contextmanager
def _alone(report: Callable[[str], None]) -> Iterator[None]:
    """Let one set-up run at a time: a second one waits, and finds what the first has made."""
    root = cache_root() / "emulated"
    with output_errors(root, "name another cache folder in EDGEKIT_CACHE_DIR"):
        root.mkdir(parents=True, exist_ok=True)
        with (root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("another set-up is running: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _tool_piece(tool: Tool) -> Piece:
    found = " ".join(filter(None, (tool.version, str(tool.path)))) if tool.path is not None else ""
    return Piece(name=tool.name, found=found, problem=tool.problem, ready=tool.path is not None)


def _build_piece(name: str, build: Build, compiler: Tool) -> Piece:
    if build.path.is_file():
        return Piece(name=name, found=str(build.path), ready=True)
    way = compiler.problem or f"`{SETUP_COMMAND}` compiles it"
    return Piece(name=name, problem=f"the {name} is not compiled: {way}", ready=False)


def _runtime_piece(runtime: Runtime) -> Piece:
    """A runtime that is not installed here is no problem: its artifacts cannot be made or verified here either."""
    name, version = f"{runtime.name} runner", installed_version(runtime)
    if version is None:
        return Piece(name=name, found=f"{runtime.distribution} is not installed here", ready=False, needed=False)
    unpacked, compiler = find_unpacked(runtime), find_cross_compiler()
    if unpacked is None:
        way = f"{compiler.problem}; then " if compiler.problem else ""
        problem = f"the aarch64 library of {runtime.distribution} {version} is not here: {way}`{SETUP_COMMAND}` gets it"
        return Piece(name=name, problem=problem, ready=False, needed=False)
    build = runner_build(unpacked)
    if not build.path.is_file():
        way = compiler.problem or f"`{SETUP_COMMAND}` compiles it"
        problem = f"the runner of {runtime.distribution} {version} is not compiled: {way}"
        return Piece(name=name, problem=problem, ready=False, needed=False)
    return Piece(name=name, found=f"{version} {build.path}", ready=True, needed=False)
