"""The manifest: a round trip, and an error that says what is wrong for every way in which a file can be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sample_builds

from edgekit.errors import ArtifactError, OutputError
from edgekit.store.manifest import MANIFEST_NAME, read_manifest, write_manifest


def test_manifest_returns_equal_when_written_and_read(tmp_path: Path) -> None:
    build = sample_builds.manifest()
    write_manifest(build, tmp_path)
    assert read_manifest(tmp_path) == build


def test_manifest_is_read_under_any_name_when_kept_as_a_baseline(tmp_path: Path) -> None:
    baseline = write_manifest(sample_builds.manifest(), tmp_path).rename(tmp_path / "baseline-2026.json")
    assert read_manifest(baseline).name == "digits"


def test_manifest_has_the_same_bytes_when_written_twice(tmp_path: Path) -> None:
    first = write_manifest(sample_builds.manifest(), tmp_path).read_bytes()
    assert write_manifest(sample_builds.manifest(), tmp_path).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME], "nothing temporary is left"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_manifest_is_refused_when_truncated_anywhere(tmp_path: Path, share: float) -> None:
    path = write_manifest(sample_builds.manifest(), tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(len(text) * share)], encoding="utf-8")
    with pytest.raises(ArtifactError, match="not whole JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"schema_version": 2}', "schema_version 2 is newer than this edgekit understands"),
        ('{"schema_version": "1"}', "expected schema_version 1, received '1'"),
        ("{}", "expected schema_version 1, received None"),
        ("[1, 2]", "expected a JSON object at the top, received list"),
        ('{"schema_version": 1, "seed": NaN}', "expected finite numbers, received NaN"),
        ('{"schema_version": 1, "name": "x"}', "holding Manifest"),
    ],
)
def test_manifest_is_refused_when_it_is_not_one(tmp_path: Path, document: str, message: str) -> None:
    path = tmp_path / MANIFEST_NAME
    path.write_text(document, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message) as raised:
        read_manifest(path)
    assert str(path) in str(raised.value)


def test_manifest_is_refused_when_bytes_are_no_text(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match="cannot be read as text"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("missing", ["", "nowhere", "file/below"])
def test_manifest_error_names_the_way_out_when_there_is_none(tmp_path: Path, missing: str) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ArtifactError, match="edgekit build RECIPE"):
        read_manifest(tmp_path / missing)


def test_manifest_write_fails_clearly_when_the_folder_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(OutputError, match="expected a folder"):
        write_manifest(sample_builds.manifest(), file)
