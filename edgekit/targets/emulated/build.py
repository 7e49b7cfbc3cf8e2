"""Compile the guest's runners, the counting plugin and the core simulator from ``targets/native``.

Everything made lies in ``cache_root()/emulated/built/<name>-<digest>/<name>``; the digest is that of the sources, the
flags and the runtime that a runner is linked with. A folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import ToolError
from edgekit.store.atomic import output_errors, write_text
from edgekit.store.cache import cache_root
from edgekit.targets.devices import packaged_targets
from edgekit.targets.emulated.fetch import Runtime, Unpacked

_WARNINGS = ("-Wall", "-Wextra")
_TIMEOUT_S = 900.0
_SHOWN_LINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Something to compile.

    Attributes:
        name: Of the file that is made.
        folder: With its sources.
        sources: What the compiler is given.
        before: Flags before the sources; no absolute path is in them, for they are part of the digest.
        after: Flags after them.
        linked: The runtime that a runner is linked with.
    """

    name: str
    folder: Path
    sources: tuple[Path, ...]
    before: tuple[str, ...]
    after: tuple[str, ...] = ()
    linked: Unpacked | None = None

    @property
    def path(self) -> Path:
        """Where the made file is, or will be."""
        return cache_root() / "emulated" / "built" / f"{self.name}-{self.digest()[:16]}" / self.name

    def digest(self) -> str:
        """Return the digest of all that the made file depends on, but for the compiler."""
        digest = hashlib.sha256(repr((self.name, self.before, self.after)).encode())
        if self.linked is not None:
            digest.update(f"{self.linked.runtime}{self.linked.version}{self.linked.sha256}".encode())
        for file in sorted({*self.sources, *self.folder.glob("*.h"), *native_folder().glob("*.h")}):
            if not file.is_file():
                continue  # compiling it says so
            digest.update(f"{file.relative_to(native_folder()).as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def command(self, compiler: tuple[str, ...], output: Path) -> list[str]:
        """Return the compiler's command line."""
        places = [f"-I{native_folder()}"]
        link = []
        if self.linked is not None:
            places += [f"-isystem{self.linked.root / folder}" for folder in self.linked.runtime.include]
            link = [f"-L{self.linked.folder}", f"-Wl,-rpath-link,{self.linked.folder}"]
        sources = map(str, self.sources)
        return [*compiler, *self.before, *places, *sources, *link, *self.after, "-o", str(output)]


def native_folder() -> Path:
    """Return the folder of the C and C++ sources."""
    return packaged_targets() / "native"


def plugin_build() -> Build:
    """The counting plugin: a shared library that qemu loads, with no names but the two that qemu asks for."""
    flags = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")
    return _host_build("plugin", "counting_plugin.so", flags)


def coresim_build() -> Build:
    """The core simulator: a program of this machine. Fused additions would make its cycles depend on the compiler."""
    return _host_build("coresim", "coresim", ("-std=c11", "-O3", "-ffp-contract=off"), ("-lm",))


def runner_build(unpacked: Unpacked) -> Build:
    """A runtime's runner: an aarch64 program, made of ``<runtime>_runner.cc`` and what all runners share."""
    folder, runtime = native_folder(), unpacked.runtime
    shared = [path for path in sorted(folder.glob("*.cc")) if not path.stem.endswith("_runner")]
    libraries = _linked_libraries(runtime)
    return Build(
        name=f"{runtime.name}_runner",
        folder=folder,
        sources=(folder / f"{runtime.name}_runner.cc", *shared),
        before=(
            *("-std=c++20", "-O2", *_WARNINGS, "-pthread", *runtime.defines),
            f'-DEDGEKIT_RUNTIME_VERSION="{unpacked.version}"',
        ),
        # A library that only registers operators is named by nothing in the runner, and must be linked all the same.
        after=("-Wl,--allow-shlib-undefined", "-Wl,--no-as-needed", *libraries, "-ldl"),
        linked=unpacked,
    )


def compile_build(build: Build, compiler: tuple[str, ...]) -> Path:
    """Compile, where that was not done before, and return the made file.

    Raises:
        ToolError: The compiler failed; names its log.
        OutputError: The cache folder cannot be written.
    """
    made = build.path
    if made.is_file():
        return made
    root = made.parents[1]
    with output_errors(root, "name another cache folder in EDGEKIT_CACHE_DIR"):
        root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".build-", dir=root))
        try:
            _run_compiler(build, compiler, staging / build.name, root / f"{build.name}.log")
            if not made.is_file():  # another set-up may have been faster
                shutil.rmtree(made.parent, ignore_errors=True)
                staging.chmod(0o755)
                staging.rename(made.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return made


def _linked_libraries(runtime: Runtime) -> tuple[str, ...]:
    return tuple(f"-l{name}" for name in runtime.libraries)


def _host_build(folder_name: str, name: str, before: tuple[str, ...], after: tuple[str, ...] = ()) -> Build:
    folder = native_folder() / folder_name
    sources = tuple(sorted(folder.glob("*.c")))
    return Build(name=name, folder=folder, sources=sources, before=(*before, *_WARNINGS), after=after)


def _run_compiler(build: Build, compiler: tuple[str, ...], output: Path, log: Path) -> None:
    missing = [path for path in build.sources if not path.is_file()]
    if missing or not build.sources:
        raise ToolError(f"{build.name} has no source at {missing[0] if missing else build.folder}", stage="setup")
    command = build.command(compiler, output)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"compiling {build.name} took more than {_TIMEOUT_S:g} s", stage="setup") from error
    except OSError as error:
        raise ToolError(f"{compiler[0]} could not be started: {error}", stage="setup") from error
    write_text(log, f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
    if done.returncode or not output.is_file():
        shown = [line for line in done.stderr.splitlines() if "error" in line][:_SHOWN_LINES]
        said = " | ".join(shown) or f"exit status {done.returncode}"
        raise ToolError(f"{build.name} does not compile: {said}", stage="setup", log=str(log))
