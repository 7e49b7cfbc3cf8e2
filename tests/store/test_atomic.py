"""Files that appear whole."""

import errno
import os

import pytest

from edgekit.errors import OutputError
from edgekit.store.atomic import digest_path, link_or_copy, output_errors, publish, size_bytes, write_bytes, write_text


def test_text_replaces_what_was_there_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "x.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_former_file_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    write_bytes(path, b"former")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="is full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pt"]


def test_folder_is_published_whole_over_an_older_one(tmp_path):
    source, destination = tmp_path / "s", tmp_path / "d"
    for folder, name in ((source, "new"), (destination, "old")):
        folder.mkdir()
        (folder / name).write_text(name)
    publish(source, destination)
    assert [path.name for path in destination.iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"s", "d"}


def test_digest_of_a_folder_depends_on_names_and_bytes_but_not_on_its_place(tmp_path):
    digests = []
    for folder, name, text in (("a", "f", "1"), ("b", "f", "1"), ("c", "g", "1"), ("d", "f", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
        digests.append(digest_path(tmp_path / folder))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert size_bytes(tmp_path / "a") == 1


def test_link_shares_bytes_and_replaces(tmp_path):
    (tmp_path / "s").write_text("fresh")
    (tmp_path / "d").write_text("stale")
    link_or_copy(tmp_path / "s", tmp_path / "d")
    link_or_copy(tmp_path / "s", tmp_path / "d")
    assert (tmp_path / "d").read_text() == "fresh"
    assert (tmp_path / "d").samefile(tmp_path / "s")


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")],
)
def test_full_or_forbidden_folder_is_told_in_the_users_words(tmp_path, number, message):
    with pytest.raises(OutputError, match=message), output_errors(tmp_path):
        raise OSError(number, "os says")


def test_other_system_errors_pass_through(tmp_path):
    with pytest.raises(OSError, match="os says"), output_errors(tmp_path):
        raise OSError(errno.EIO, "os says")
