"""A guest Python with ncnn in it, in the cache folder: `python -m benchmarks.fidelity.ncnn.setup`.

The Python is Debian's for arm64, fetched by apt with a state folder of its own (nothing of this machine's packages is
touched, and no root is needed), the wheel is ncnn's from PyPI. apt checks Debian's signatures, pip the wheel's digest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from edgekit.store.cache import cache_root

NCNN = "1.0.20261020"
WHEEL_SHA256 = "0503da4f3960ee2e555feef55db13adffd6c62eb59a4bd22f8083b12d1757ad8"
PYTHON = "3.11"
SUITE = "bookworm"  # the Debian release with this Python
PACKAGES = (
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "zlib1g",
    "libexpat1",
    "libffi8",
)
"""Without a C library: the guest has the toolchain's, of the same release."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = f"""Types: deb
URIs: http://deb.debian.org/debian
Suites: {SUITE}
Components: main
Signed-By: {KEYRING}
"""


def guest_root() -> Path:
    """Return where the guest Python lies or will lie."""
    return cache_root() / "benchmarks" / f"ncnn-{NCNN}-python-{PYTHON}"


def interpreter(root: Path) -> Path:
    """Return the guest's Python."""
    return root / "usr" / "bin" / f"python{PYTHON}"


def libraries(root: Path) -> Path:
    """Return the folder with the libraries that the guest's Python wants beside the C library."""
    return root / "usr" / "lib" / "aarch64-linux-gnu"


def environment(root: Path) -> dict[str, str]:
    """Return the variables that the guest's Python is started with."""
    return {
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": str(root / "site"),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def ensure() -> Path:
    """Return the guest's root folder, fetched where it is not there yet.

    Raises:
        RuntimeError: apt-get, dpkg or Debian's keyring is missing, or a fetch failed; the message says which.
    """
    root = guest_root()
    if (root / "complete").is_file():
        return root
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing or not KEYRING.is_file():
        raise RuntimeError(
            f"the guest Python comes from Debian's arm64 packages; missing here: {', '.join(missing) or KEYRING}. "
            "Run this benchmark on Debian or Ubuntu with debian-archive-keyring."
        )
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _fetch_python(partial)
    _fetch_ncnn(partial)
    (partial / "complete").write_text("")
    shutil.rmtree(root, ignore_errors=True)
    partial.replace(root)
    return root


def _fetch_python(root: Path) -> None:
    state = root / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "packages"):
        (state / folder).mkdir(parents=True)
    (state / "status").write_text("")
    (state / "debian.sources").write_text(SOURCES)
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", *(f"-o{key}={value}" for key, value in options.items())]
    _run([*apt, "update"], state)
    _run([*apt, "download", *PACKAGES], state / "packages")
    for package in sorted((state / "packages").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)], state)
    for library in (root / "lib" / "aarch64-linux-gnu").glob("*.so*"):
        library.replace(libraries(root) / library.name)
    shutil.rmtree(state)


def _fetch_ncnn(root: Path) -> None:
    wheels = root / "wheels"
    wheels.mkdir()
    (wheels / "requirements.txt").write_text(f"ncnn=={NCNN} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    platform = ["--platform", "manylinux_2_28_aarch64", "--python-version", PYTHON, "--implementation", "cp"]
    _run([*pip, *platform, "-r", "requirements.txt", "-d", "."], wheels)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    shutil.rmtree(wheels)


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed in {folder}: {(result.stderr or result.stdout)[-500:]}")


def main() -> int:
    sys.stdout.write(f"{ensure()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
