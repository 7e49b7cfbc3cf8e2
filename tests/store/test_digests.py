"""Digests that are remembered, and the changes that must make them forgotten."""

import hashlib
import os
import time

import pytest

from edgekit.store import digests
from edgekit.store.digests import file_digests


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED_NS", 0)


@pytest.fixture
def reads(monkeypatch):
    seen = []
    read = digests.digest_of_bytes
    monkeypatch.setattr(digests, "digest_of_bytes", lambda path: seen.append(path.name) or read(path))
    return seen


def _files(folder, count=3):
    paths = [folder / f"{number}.bin" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * number)
    time.sleep(0.01)
    return paths


def test_file_is_read_once_when_it_does_not_change(tmp_path, reads):
    paths = _files(tmp_path)
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert file_digests(paths) == expected
    assert file_digests(paths) == expected
    assert reads == ["0.bin", "1.bin", "2.bin"]


def test_file_is_read_again_when_its_bytes_changed_and_its_size_and_time_were_set_back(tmp_path, reads):
    path = _files(tmp_path)[2]
    before = path.stat()
    (old,) = file_digests([path])
    path.write_bytes(b"yy")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (new,) = file_digests([path])
    assert new == hashlib.sha256(b"yy").hexdigest() != old
    assert len(reads) == 2


def test_file_that_changed_just_now_is_not_remembered(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_NS", 10**12)
    paths = _files(tmp_path, 1)
    assert file_digests(paths) == file_digests(paths)
    assert len(reads) == 2


def test_damaged_memory_only_costs_time(tmp_path, reads):
    paths = _files(tmp_path)
    expected = file_digests(paths)
    (tmp_path / "cache" / digests.NAME).write_bytes(b"not a database" * 100)
    assert file_digests(paths) == expected
    assert len(reads) == 6


def test_cache_folder_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "file"))
    (digest,) = file_digests(_files(tmp_path, 1))
    assert digest == hashlib.sha256(b"").hexdigest()
