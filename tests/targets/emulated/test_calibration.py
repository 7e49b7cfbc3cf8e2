"""Anchors: stored, found, applied as one factor, and dropped when the model has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.cli.main import run
from edgekit.errors import TargetError, UnsupportedError, UserInputError
from edgekit.pipeline.calibrate import forget, parse_measurement
from edgekit.targets.emulated import calibration
from edgekit.targets.emulated.calibration import (
    Anchor,
    Layer,
    anchor_files,
    anchoring,
    forget_anchors,
    read_anchors,
    store_anchors,
)

DEVICE = "pixel-3a"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[str, Path], ...]:
    """A project and a user's folder of their own."""
    found = (("project", tmp_path / "project"), ("user", tmp_path / "user"), ("packaged", tmp_path / "packaged"))
    monkeypatch.setattr(calibration, "device_folders", lambda: found)
    return found


def anchor(
    measured_ms: float, estimated_ms: float, sha256: str = "aa", estimator: str = "now", model: Layer = "static"
) -> Anchor:
    return Anchor(
        artifact="v1.tflite",
        sha256=sha256,
        model=model,
        measured_ms=measured_ms,
        estimated_ms=estimated_ms,
        estimator=estimator,
        edgekit="0.1.0",
    )


def test_factor_is_the_geometric_mean_of_the_anchors_of_the_layer() -> None:
    anchors = [anchor(20.0, 10.0), anchor(8.0, 1.0, "bb"), anchor(99.0, 1.0, "cc", model="trace")]
    found = anchoring(anchors, "static", "now")
    assert found.factor == pytest.approx(4.0)
    assert found.anchors == ("v1.tflite = 20 ms", "v1.tflite = 8 ms")
    assert found.notes == ()


def test_anchor_is_ignored_with_a_note_when_the_model_has_changed() -> None:
    found = anchoring([anchor(20.0, 10.0, estimator="earlier")], "static", "now")
    assert (found.factor, found.anchors) == (1.0, ())
    assert "the anchor v1.tflite = 20 ms is stale" in found.notes[0]
    assert "edgekit targets calibrate" in found.notes[0]


def test_anchors_are_added_and_the_same_artifact_is_replaced() -> None:
    file = store_anchors(DEVICE, [anchor(20.0, 10.0), anchor(5.0, 5.0, "bb")], project=False)
    assert file == anchor_files(DEVICE)["user"]
    store_anchors(DEVICE, [anchor(30.0, 10.0)], project=False)
    assert {(found.sha256, found.measured_ms) for found in read_anchors(DEVICE)} == {("aa", 30.0), ("bb", 5.0)}


def test_stored_file_is_the_same_whatever_the_order_of_the_anchors() -> None:
    one, two = anchor(20.0, 10.0), anchor(5.0, 5.0, "bb")
    first = store_anchors(DEVICE, [one, two], project=False).read_bytes()
    forget_anchors(DEVICE, project=False)
    assert store_anchors(DEVICE, [two, one], project=False).read_bytes() == first


def test_anchors_of_the_project_come_before_those_of_the_user() -> None:
    store_anchors(DEVICE, [anchor(20.0, 10.0)], project=False)
    store_anchors(DEVICE, [anchor(30.0, 10.0)], project=True)
    assert [found.measured_ms for found in read_anchors(DEVICE)] == [30.0]
    forget_anchors(DEVICE, project=True)
    assert [found.measured_ms for found in read_anchors(DEVICE)] == [20.0]
    assert forget_anchors(DEVICE, project=True) is None


def test_project_is_refused_when_the_folder_is_edgekits_own(
    folders: tuple[tuple[str, Path], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "device_folders", lambda: folders[1:])
    with pytest.raises(TargetError, match="run from your project's folder"):
        store_anchors(DEVICE, [anchor(1.0, 1.0)], project=True)


@pytest.mark.parametrize("content", ["[", "schema_version: 2\n", "schema_version: 1\ndevice: pixel-3a\nextra: 1\n"])
def test_anchors_error_names_the_file_and_the_way_out_when_it_is_broken(content: str) -> None:
    file = store_anchors(DEVICE, [anchor(20.0, 10.0)], project=False)
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TargetError, match=r"pixel-3a\.yaml: expected anchors .* --forget"):
        read_anchors(DEVICE)


def test_anchors_of_another_device_are_refused() -> None:
    file = store_anchors(DEVICE, [anchor(20.0, 10.0)], project=False)
    file.write_text(file.read_text(encoding="utf-8").replace(DEVICE, "pixel-4"), encoding="utf-8")
    with pytest.raises(TargetError, match="expected anchors of pixel-3a"):
        read_anchors(DEVICE)


@pytest.mark.parametrize(("text", "ms"), [("v1.tflite=88ms", 88.0), ("a=b.tflite=2 ms", 2.0), ("m.pte=1.5 s", 1500.0)])
def test_measurement_is_read_with_its_unit(text: str, ms: float) -> None:
    assert parse_measurement(text).measured_ms == ms


@pytest.mark.parametrize("text", ["v1.tflite", "=88ms", "v1.tflite=88", "v1.tflite=0 ms", "v1.tflite=fast"])
def test_measurement_is_refused_when_it_is_no_duration(text: str) -> None:
    with pytest.raises(UserInputError, match="--measured"):
        parse_measurement(text)


def test_device_with_a_clock_is_not_calibrated() -> None:
    with pytest.raises(UnsupportedError, match="this machine, whose figures are not modelled"):
        forget("host", project=False)


@pytest.mark.parametrize("arguments", [[], ["--forget", "--measured", "a=1ms"]])
def test_command_asks_for_either_a_measurement_or_forget(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["targets", "calibrate", DEVICE, *arguments]) == 2
    assert "either --measured FILE=DURATION" in capsys.readouterr().err
