"""Digests of files, remembered by path, size and times: a large folder is read once, not at every build."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgekit.store.cache import cache_root

NAME = "digests.sqlite"
SETTLED_NS = 2_000_000_000
"""A file that changed so recently may change again within the resolution of its clock: it is not remembered."""

_BLOCK = 1 << 20
_SCHEMA = "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, facts TEXT, digest TEXT)"


def file_digests(files: Iterable[Path]) -> list[str]:
    """Return the SHA-256 of each file's bytes, in hexadecimal.

    A file whose path, size, inode and times (of content and of status, which ``cp -p`` cannot set back) are those
    remembered is not read again. The memory is a help, never a need: where
    the cache folder cannot be written, or its database is damaged, every file is read.

    Raises:
        OSError: A file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        memory = _Memory(stack.enter_context(_database()))
        return [memory.digest(file) for file in files]


def digest_of_bytes(path: Path) -> str:
    """Read a file and return its SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """Open the memory; None where there can be none."""
    connection = None
    with contextlib.suppress(OSError, sqlite3.Error):
        cache_root().mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(cache_root() / NAME, timeout=5)
        connection.execute(_SCHEMA)
    try:
        yield connection
    finally:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.commit()
            connection.close()


class _Memory:
    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def digest(self, path: Path) -> str:
        state = path.stat()
        facts = f"{state.st_size}:{state.st_ino}:{state.st_mtime_ns}:{state.st_ctime_ns}"
        name = str(path.absolute())
        known = self._find(name, facts)
        if known is not None:
            return known
        digest = digest_of_bytes(path)
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
            self._keep(name, facts, digest)
        return digest

    def _find(self, name: str, facts: str) -> str | None:
        if self._connection is None:
            return None
        query = "SELECT digest FROM digests WHERE path = ? AND facts = ?"
        with contextlib.suppress(sqlite3.Error):
            row: tuple[str] | None = self._connection.execute(query, (name, facts)).fetchone()
            return None if row is None else row[0]
        return None

    def _keep(self, name: str, facts: str, digest: str) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (name, facts, digest))
