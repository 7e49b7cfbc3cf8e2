"""The stage cache: what a stage made, found again by the digest of everything that it read.

Layout of the cache folder::

    entries/<stage>/<key>/      whole, read-only by convention; result.json is the stage's record
    work/<key>/                 of a stage that runs or was cut off: out/ becomes the entry, the rest is scratch
    locks/<key>                 held while a stage runs, so that two builds never make the same thing at once

A cut-off stage leaves its work folder behind, so training finds its checkpoints again. An entry appears by one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from edgekit.records import from_json, to_json
from edgekit.store.atomic import output_errors, write_text

CACHE_VARIABLE = "EDGEKIT_CACHE_DIR"
_PLACE = "{entry}"
_WAY_OUT = f"name another cache folder in {CACHE_VARIABLE}"
Result = TypeVar("Result")


def cache_root() -> Path:
    """Return ``EDGEKIT_CACHE_DIR``, else the platform's user cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(platformdirs.user_cache_dir("edgekit"))


@cache
def package_digest() -> str:
    """Return the digest of edgekit's own source: another edgekit never answers from this one's cache."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def stage_key(stage: str, reads: Mapping[str, Any]) -> str:
    """Return the key of a stage: the digest of its name, of edgekit's source and of everything that it reads.

    Args:
        stage: Such as ``export:tflite/int8``.
        reads: JSON-ready values: settings, digests of files and code, tool versions, keys of earlier stages.
    """
    document = json.dumps({"stage": stage, "edgekit": package_digest(), "reads": reads}, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a stage works: ``out`` becomes the cache entry, ``scratch`` survives a cut-off and ends with success."""

    out: Path
    scratch: Path


class StageCache:
    """Entries of one cache folder.

    Args:
        root: The folder; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, stage: str, key: str, kind: type[Result]) -> Result | None:
        """Return what the stage made, None when it has not run with these inputs."""
        entry = self._entry(stage, key)
        result = entry / "result.json"
        if not result.is_file():
            return None
        text = result.read_text(encoding="utf-8").replace(_PLACE, json.dumps(str(entry))[1:-1])
        return from_json(kind, json.loads(text))

    @contextmanager
    def producing(self, key: str, *, anew: bool) -> Iterator[Workspace]:
        """Hold the stage's lock and give it a place to work.

        Args:
            key: What is made.
            anew: Throw away what a cut-off run left.
        """
        work = self.root / "work" / key
        lock = self.root / "locks" / key
        with output_errors(self.root, _WAY_OUT):
            lock.parent.mkdir(parents=True, exist_ok=True)
            with lock.open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if anew:
                    shutil.rmtree(work, ignore_errors=True)
                shutil.rmtree(work / "out", ignore_errors=True)
                (work / "out").mkdir(parents=True)
                (work / "scratch").mkdir(exist_ok=True)
                yield Workspace(work / "out", work / "scratch")

    def commit(self, stage: str, key: str, result: Result, reads: Mapping[str, Any]) -> Result:
        """Turn a finished work folder into an entry and return the result with the entry's paths."""
        work = self.root / "work" / key
        text = json.dumps(to_json(result), sort_keys=True).replace(json.dumps(str(work / "out"))[1:-1], _PLACE)
        entry = self._entry(stage, key)
        with output_errors(self.root, _WAY_OUT):
            write_text(
                work / "out" / "reads.json", json.dumps({"stage": stage, "reads": reads}, indent=2, sort_keys=True)
            )
            write_text(work / "out" / "result.json", text)
            entry.parent.mkdir(parents=True, exist_ok=True)
            if entry.exists():  # made anew with --force: the old one leaves by a rename, never half-deleted in place
                entry.rename(work / "replaced")
            (work / "out").rename(entry)
            shutil.rmtree(work, ignore_errors=True)
        found = self.find(stage, key, type(result))
        return result if found is None else found

    def _entry(self, stage: str, key: str) -> Path:
        return self.root / "entries" / stage.partition(":")[0] / key
