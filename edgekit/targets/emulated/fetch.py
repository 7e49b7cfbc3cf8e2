"""Fetch the aarch64 wheels of the runtimes that are installed here, and unpack the libraries that a guest needs.

Layout below ``cache_root()/emulated``::

    wheels/<distribution>-<version>/   the wheel, and wheel.json with its name and SHA-256
    runtimes/<runtime>-<version>-<digest>/   shared libraries and headers of that wheel, at their places in it

pip checks a wheel against the index; ``targets/native/wheels.json`` pins the digests of the versions that edgekit is
tested with; ``wheel.json`` lets a later, offline set-up find out that a kept wheel was damaged.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekit.errors import ToolError
from edgekit.store.atomic import digest_path, output_errors, write_text
from edgekit.store.cache import cache_root
from edgekit.targets.devices import packaged_targets

Report = Callable[[str], None]

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
PYTHON = "3.11"
"""Of the wheels: their shared libraries do not depend on it, so every machine gets the same ones."""
_PIP_TIMEOUT_S = 1800.0
_MARKER = "unpacked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime whose library is run on the guest.

    Attributes:
        name: As in ``Toolchain.runners``.
        distribution: Its package.
        folder: Where its libraries lie in the wheel.
        include: Folders of headers in the wheel.
        defines: Flags that its headers ask for.
        libraries: What a runner is linked with: names of files in ``folder``, without ``lib`` and ``.so``.
        wanted: Patterns of the files to unpack, as paths in the wheel.
    """

    name: str
    distribution: str
    folder: str
    libraries: tuple[str, ...]
    wanted: tuple[str, ...]
    include: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()


RUNTIMES = (
    Runtime(
        name="litert",
        distribution="ai-edge-litert",
        folder="ai_edge_litert",
        libraries=("LiteRt",),
        # The second holds the symbols that the first was stripped of: names of kernels come from there.
        wanted=("ai_edge_litert/libLiteRt.so", "ai_edge_litert/libpywrap_litert_common.so"),
    ),
    Runtime(
        name="executorch",
        distribution="executorch",
        folder="executorch/lib",
        include=("executorch/include", "executorch/include/executorch/runtime/core/portable_type/c10"),
        defines=("-DC10_USING_CUSTOM_GENERATED_MACROS",),
        libraries=(
            *("executorch", "executorch_kernels_optimized", "executorch_kernels_quantized"),
            *("executorch_backend_xnnpack", "executorch_threadpool", "executorch_etdump"),
        ),
        wanted=("executorch/lib/*.so", "executorch/include/**"),
    ),
    Runtime(
        name="onnxruntime",
        distribution="onnxruntime",
        folder="onnxruntime/capi",
        libraries=("onnxruntime",),
        wanted=("onnxruntime/capi/libonnxruntime.so.*", "onnxruntime/capi/libonnxruntime_providers_shared.so"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A runtime's aarch64 files, ready.

    Attributes:
        runtime: Which one.
        version: Of its package.
        root: The folder that stands for the wheel's root.
        sha256: Of the wheel.
    """

    runtime: Runtime
    version: str
    root: Path
    sha256: str

    @property
    def folder(self) -> Path:
        """The folder with its shared libraries."""
        return self.root / self.runtime.folder


def installed_version(runtime: Runtime) -> str | None:
    """Return the version of the runtime in this environment, which its guest must have too; None: not installed."""
    try:
        return importlib.metadata.version(runtime.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_unpacked(runtime: Runtime) -> Unpacked | None:
    """Return the runtime's files where they were fetched before; fetches nothing."""
    version = installed_version(runtime)
    lock = None if version is None else _read_lock(_wheel_folder(runtime, version))
    if version is None or lock is None:
        return None
    root = _runtime_root(runtime, version, lock["sha256"])
    return Unpacked(runtime=runtime, version=version, root=root, sha256=lock["sha256"]) if _is_whole(root) else None


def fetch(runtime: Runtime, version: str, report: Report, *, offline: bool) -> Unpacked:
    """Return the runtime's files, fetched and unpacked where that was not done before.

    Args:
        runtime: Which one.
        version: Of its package.
        report: Told what is fetched before it is.
        offline: Fetch nothing; a kept wheel is checked and unpacked again where its files are gone.

    Raises:
        ToolError: It cannot be fetched, or is not what was pinned; the message says what to do.
    """
    wheel = _kept_wheel(runtime, version, report)
    if wheel is None:
        if offline:
            raise ToolError(
                f"the aarch64 wheel of {runtime.distribution} {version} was not fetched before: "
                "run `edgekit targets setup emulated` once with a network",
                stage="setup",
            )
        wheel = _download(runtime, version, report)
    sha256 = digest_path(wheel)
    root = _runtime_root(runtime, version, sha256)
    if not _is_whole(root):
        _unpack(wheel, runtime, root)
        report(f"unpacked {wheel.name} into {root}")
    return Unpacked(runtime=runtime, version=version, root=root, sha256=sha256)


def _kept_wheel(runtime: Runtime, version: str, report: Report) -> Path | None:
    folder = _wheel_folder(runtime, version)
    lock = _read_lock(folder)
    if lock is None:
        return None
    wheel = folder / lock["file"]
    if wheel.is_file() and digest_path(wheel) == lock["sha256"]:
        return wheel
    report(f"{wheel} is missing or damaged (its SHA-256 is not the recorded one)")
    return None


def _download(runtime: Runtime, version: str, report: Report) -> Path:
    folder = _wheel_folder(runtime, version)
    with output_errors(folder, "name another cache folder in EDGEKIT_CACHE_DIR"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            report(f"fetching {runtime.distribution} {version} for aarch64 with pip")
            wheel = _run_pip(runtime, version, Path(scratch))
            sha256 = digest_path(wheel)
            _check_pinned(wheel, sha256)
            kept = wheel.replace(folder / wheel.name)
            write_text(folder / "wheel.json", json.dumps({"file": kept.name, "sha256": sha256}, indent=2) + "\n")
    report(f"fetched {kept.name} ({kept.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256})")
    return kept


def _run_pip(runtime: Runtime, version: str, folder: Path) -> Path:
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, *platforms),
        *("--dest", str(folder), f"{runtime.distribution}=={version}"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_PIP_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"pip did not fetch {runtime.distribution} in {_PIP_TIMEOUT_S:g} s", stage="setup") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = " ".join(done.stderr.split()[:80]) or "no wheel came"
        raise ToolError(
            f"pip could not fetch {runtime.distribution} {version} for aarch64 ({', '.join(PLATFORMS)}; Python "
            f"{PYTHON}): {said}. A version without aarch64 wheels cannot be emulated; install one that has them.",
            stage="setup",
        )
    return wheels[0]


def _check_pinned(wheel: Path, sha256: str) -> None:
    pinned = json.loads((packaged_targets() / "native" / "wheels.json").read_text(encoding="utf-8"))
    expected = pinned.get(wheel.name)
    if expected is not None and expected != sha256:
        raise ToolError(
            f"{wheel.name} has the SHA-256 {sha256}, expected {expected}: the index served another file than the one "
            "edgekit was tested with; nothing of it is used",
            stage="setup",
        )


def _unpack(wheel: Path, runtime: Runtime, root: Path) -> None:
    """Take the wanted files out of a wheel; the folder appears when it is whole."""
    with output_errors(root.parent, "name another cache folder in EDGEKIT_CACHE_DIR"):
        root.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root.parent))
        try:
            sizes = _extract(wheel, runtime, staging)
            for library in (staging / runtime.folder).glob("lib*.so.*"):
                _give_short_names(library)
            (staging / _MARKER).write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            shutil.rmtree(root, ignore_errors=True)
            staging.rename(root)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _extract(wheel: Path, runtime: Runtime, folder: Path) -> dict[str, int]:
    sizes = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if member.is_dir() or not any(_matches(path, pattern) for pattern in runtime.wanted):
                    continue
                archive.extract(member, folder)  # zipfile drops '..' and leading '/'
                sizes[member.filename] = member.file_size
    except zipfile.BadZipFile as error:
        raise ToolError(f"{wheel} is damaged: {error}; delete it and set up again", stage="setup") from error
    if not any(PurePosixPath(name).parent == PurePosixPath(runtime.folder) for name in sizes):
        raise ToolError(
            f"{wheel.name} holds none of {', '.join(runtime.wanted)}: this version of {runtime.distribution} is laid "
            "out in another way than edgekit knows",
            stage="setup",
        )
    return sizes


def _matches(path: PurePosixPath, pattern: str) -> bool:
    return path.is_relative_to(pattern.removesuffix("/**")) if pattern.endswith("/**") else path.match(pattern)


def _give_short_names(library: Path) -> None:
    """Let the loader and the linker find ``libx.so.1.32.0`` as ``libx.so.1`` and ``libx.so``."""
    match = re.fullmatch(r"(lib.+\.so)(\.\d+)(?:\.\d+)*", library.name)
    if match is not None:
        for name in (match[1] + match[2], match[1]):
            if name != library.name and not (library.parent / name).exists():
                (library.parent / name).symlink_to(library.name)


def _is_whole(root: Path) -> bool:
    sizes = _read_json(root / _MARKER)
    return sizes is not None and all(
        (root / name).is_file() and (root / name).stat().st_size == size for name, size in sizes.items()
    )


def _read_lock(folder: Path) -> dict[str, str] | None:
    lock = _read_json(folder / "wheel.json")
    return lock if lock is not None and {"file", "sha256"} <= lock.keys() else None


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a file of our own in the cache folder; None where it is not there or was damaged: it is made again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _wheel_folder(runtime: Runtime, version: str) -> Path:
    return cache_root() / "emulated" / "wheels" / f"{runtime.distribution}-{version}"


def _runtime_root(runtime: Runtime, version: str, sha256: str) -> Path:
    return cache_root() / "emulated" / "runtimes" / f"{runtime.name}-{version}-{sha256[:12]}"
