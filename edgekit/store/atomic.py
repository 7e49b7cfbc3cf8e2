"""Files that appear whole or not at all, and digests of files and folders."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import OutputError


@contextmanager
def output_errors(path: Path, way_out: str = "choose another folder") -> Iterator[None]:
    """Turn what an operating system says of a full or forbidden folder into the user's words.

    Args:
        path: The folder.
        way_out: What the user can do about it.

    Raises:
        OutputError: Names the folder and the way out.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk that holds {path} is full; free some space or {way_out}.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"{path} cannot be written ({error.strerror}); {way_out}.") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise OutputError(f"expected a folder at {path}, found something else; {way_out}.") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file under its final name only when it is whole and on disk.

    Raises:
        OutputError: The folder cannot be written, or is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under its final name only when it is whole and on disk.

    Raises:
        OutputError: The folder cannot be written, or is full.
    """
    with output_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name with old or no content
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def publish(source: Path, destination: Path) -> None:
    """Copy a file or folder so that it appears under its final name only when it is whole.

    What was there before is replaced. A folder is swapped by two renames, so that a reader sees the old or the new one.
    """
    with output_errors(destination.parent):
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        try:
            fresh = staging / "new"
            if source.is_dir():
                shutil.copytree(source, fresh)
            else:
                shutil.copyfile(source, fresh)
            if destination.is_dir() and not destination.is_symlink():
                destination.rename(staging / "old")
            fresh.replace(destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def link_or_copy(source: Path, destination: Path) -> None:
    """Give a cached file a second name in a build folder; copy it where the two lie on different disks.

    Only for files that nobody writes to: both names are the same bytes.
    """
    with output_errors(destination.parent):
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists() and destination.samefile(source):
            return
        staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
        try:
            fresh = staging / "new"
            try:
                fresh.hardlink_to(source)
            except OSError:
                shutil.copyfile(source, fresh)
            fresh.replace(destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def digest_path(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, or of a folder's names and bytes in sorted order, in hexadecimal."""
    digest = hashlib.sha256()
    for file in _files_of(path):
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of everything in a folder."""
    return sum(file.stat().st_size for file in _files_of(path))


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
