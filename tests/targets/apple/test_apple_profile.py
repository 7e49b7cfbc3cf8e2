"""Profiles on Apple chips: predicted here, measured where the machine says that it has the chip."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contracts.target_contract import PredictedTargetContract
from contracts.tiny_artifacts import TinyArtifact, tiny_artifact
from tiny_tflite import write_tflite

from edgekit.cli.main import run
from edgekit.errors import ArtifactError, TargetError, UnsupportedError
from edgekit.formats import format_spec
from edgekit.pipeline.devices import check_model, refusal
from edgekit.records import FormatName, MeasuredProfile, PredictedProfile, ProfileConfig
from edgekit.targets import ProfileRequest, diagnose, find_device, load_device
from edgekit.targets.apple import bands, machine
from edgekit.targets.apple.bands import AppleErrorBands, UnitErrors, band_of, read_bands
from edgekit.targets.apple.run import profile_apple
from edgekit.targets.apple.spec import AppleDevice
from edgekit.targets.devices import packaged_targets
from edgekit.targets.estimates import UNKNOWN, estimate

M1 = packaged_targets() / "apple-m1.yaml"


@pytest.fixture(autouse=True)
def _the_chip_is_asked_anew() -> Iterator[None]:
    machine.chip_here.cache_clear()
    yield
    machine.chip_here.cache_clear()


@pytest.fixture(scope="session")
def package() -> TinyArtifact:
    return tiny_artifact("coreml", "cnn", "fp16")


def dense(folder: Path) -> Path:
    return write_tflite(folder / "dense.tflite", np.eye(4, 8, dtype=np.float32))


def request_of(artifact: Path, tmp_path: Path, format_name: FormatName = "coreml") -> ProfileRequest:
    spec = format_spec(format_name)
    return ProfileRequest(
        artifact=artifact,
        artifact_id=f"{format_name}/test",
        format=format_name,
        open_session=spec.open_session,
        reference=None,
        device=find_device("apple-m1").model_dump(mode="json"),
        config=ProfileConfig(num_runs=5, warmup_runs=1),
        work_dir=tmp_path,
        inspect=spec.inspect,
        place=spec.place,
    )


class TestAppleContract(PredictedTargetContract):
    kind = "apple"

    @pytest.fixture
    def device_file(self, tmp_path: Path) -> Path:
        path = tmp_path / "apple-m1.yaml"
        path.write_bytes(M1.read_bytes())
        return path

    @pytest.fixture
    def request_for(self, device_file: Path, tmp_path: Path, package: TinyArtifact) -> ProfileRequest:
        artifact = shutil.copytree(package.path, tmp_path / "model.mlpackage")
        asked = request_of(package.path, tmp_path)
        return replace(asked, artifact=artifact, device=load_device(device_file).model_dump(mode="json"))

    def test_profile_error_names_the_file_when_the_artifact_is_missing(
        self, request_for: ProfileRequest, tmp_path: Path
    ) -> None:
        gone = replace(request_for, artifact=tmp_path / "gone.mlpackage")
        with pytest.raises(ArtifactError, match=r"gone\.mlpackage"):
            self.profiled(gone, tmp_path)


def test_prediction_says_what_it_rests_on(package: TinyArtifact, tmp_path: Path) -> None:
    found = profile_apple(request_of(package.path, tmp_path))
    assert isinstance(found, PredictedProfile)
    assert found.machine["chip"] == "Apple M1"
    assert found.machine["figures"]
    notes = " ".join(found.notes)
    for words in ("nothing ran", "segments: 1", "cpuAndGPU", "cpuOnly"):
        assert words in notes
    assert found.compute_units == "all"


def test_compute_units_of_the_device_file_decide_where_it_runs(package: TinyArtifact, tmp_path: Path) -> None:
    asked = request_of(package.path, tmp_path)
    found = profile_apple(replace(asked, device={**asked.device, "compute_units": "cpuOnly"}))
    assert isinstance(found, PredictedProfile)
    assert {operator.unit for operator in found.operators} == {"cpu"}
    assert found.compute_units == "cpuOnly"


def test_figures_of_the_chip_change_its_digest(package: TinyArtifact) -> None:
    first, second = find_device("apple-m1"), find_device("apple-m2")
    assert isinstance(first, AppleDevice)
    assert isinstance(second, AppleDevice)
    assert machine.figures_digest(first) != machine.figures_digest(second)
    renamed = first.model_copy(update={"name": "mine", "sources": {}})
    assert machine.figures_digest(renamed) == machine.figures_digest(first)


# ----- which machine this is


def pretend(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> None:
    """Let the module alone believe in macOS and in what a command answers."""
    machine.chip_here.cache_clear()
    monkeypatch.setattr(machine, "platform", SimpleNamespace(system=lambda: "Darwin"))
    runner = SimpleNamespace(run=answer, SubprocessError=subprocess.SubprocessError)
    monkeypatch.setattr(machine, "subprocess", runner)


def on_a_mac(monkeypatch: pytest.MonkeyPatch, chip: str) -> None:
    """Pretend that this machine is a Mac: what is asked of it and how is real, its answer is not."""

    def answer(command: tuple[str, ...], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command == ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
        return subprocess.CompletedProcess(command, 0, stdout=f"{chip}\n", stderr="")

    pretend(monkeypatch, answer)


def test_no_chip_is_here_when_this_is_no_mac() -> None:
    assert machine.chip_here() is None


@pytest.mark.parametrize(
    "failure",
    [FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 10), subprocess.CalledProcessError(1, "")],
)
def test_no_chip_is_here_when_the_system_does_not_answer(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    pretend(monkeypatch, fail)
    assert machine.chip_here() is None


def test_diagnosis_says_whether_profiles_are_measured_or_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    device = find_device("apple-m1")
    elsewhere = diagnose(device)
    assert elsewhere.usable
    assert "predicted" in elsewhere.facts["profiles"]
    assert "ssh:user@mac" in " ".join(elsewhere.problems)
    on_a_mac(monkeypatch, "Apple M1")
    here = diagnose(device)
    assert (here.usable, here.problems, here.facts["profiles"]) == (True, (), "measured, on this Mac")


@pytest.mark.parametrize("chip", ["Apple M1 Pro", "Apple M3"])
def test_another_macs_chip_is_predicted_and_the_note_says_so(
    monkeypatch: pytest.MonkeyPatch, package: TinyArtifact, tmp_path: Path, chip: str
) -> None:
    on_a_mac(monkeypatch, chip)
    found = profile_apple(request_of(package.path, tmp_path))
    assert isinstance(found, PredictedProfile)
    assert f"this Mac has {chip}" in " ".join(found.notes)


@pytest.mark.parametrize(("name", "backend"), [("tflite", "xnnpack"), ("executorch", "coreml"), ("onnx", "cpu")])
def test_other_formats_are_refused_with_the_way_out_where_the_chip_is_not(
    monkeypatch: pytest.MonkeyPatch, name: FormatName, backend: str
) -> None:
    device = find_device("apple-m1")
    reason = refusal(device, name, None)
    assert reason is not None
    for way_out in ("iphone-12", "ssh:user@mac"):
        assert way_out in reason
    assert refusal(device, "coreml", None) is None
    monkeypatch.setattr(machine, "chip_here", lambda: "Apple M1")
    assert refusal(device, name, None) is None


def test_other_formats_are_refused_by_the_profile_too(tmp_path: Path) -> None:
    asked = request_of(dense(tmp_path), tmp_path, "tflite")
    with pytest.raises(UnsupportedError, match="iphone-12"):
        profile_apple(asked)


def test_profile_on_a_mac_runs_the_measuring_script_and_reads_its_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """LiteRT exists on this machine too, so that all but the Mac itself is real."""
    monkeypatch.setattr("edgekit.targets.apple.run.is_measured", lambda _: True)
    found = profile_apple(request_of(dense(tmp_path), tmp_path, "tflite"))
    assert isinstance(found, MeasuredProfile)
    assert found.target == "apple-m1"
    assert len(found.latency_ms.samples) == 5
    assert found.parity is not None
    assert found.parity.status == "pass"


def test_package_is_refused_when_core_ml_is_not_there_after_all(
    monkeypatch: pytest.MonkeyPatch, package: TinyArtifact, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgekit.targets.apple.run.is_measured", lambda _: True)
    with pytest.raises(TargetError, match="apple-m1"):
        profile_apple(request_of(package.path, tmp_path))


def test_model_of_counts_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no instructions are counted there"):
        check_model(find_device("apple-m1"), "static")


# ----- bands


def test_band_tells_errors_of_both_signs_apart() -> None:
    errors = UnitErrors(rows=4, chips=("a17-pro", "m4"), median=0.2, over=0.6, under=0.2)
    found = AppleErrorBands(schema_version=1, method="rows", units={"neural_engine": errors})
    latency = estimate(1.6, 1.0, (), band_of(found, "neural_engine"))
    assert latency.low == pytest.approx(1.0)
    assert latency.high == pytest.approx(2.0)
    assert "4 published rows on the neural engine of a17-pro, m4" in latency.basis


def test_nobody_can_say_how_far_a_unit_without_rows_is_off() -> None:
    for known in (None, AppleErrorBands(schema_version=1, method="rows", units={})):
        found = band_of(known, "gpu")
        assert found.error == UNKNOWN
        assert estimate(1.0, 1.0, (), found).high is None


def test_packaged_bands_can_be_read() -> None:
    assert bands.bands_path().is_file()
    found = read_bands()
    assert found is not None
    assert found.units["neural_engine"].rows >= 10


@pytest.mark.parametrize("text", ["[]", "{", '{"schema_version": 2, "method": "", "units": {}}', "\xff"])
def test_bands_are_refused_when_the_file_holds_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bands.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(TargetError, match="expected error bands"):
        read_bands(path)
    assert read_bands(tmp_path / "none.json") is None


# ----- commands


def test_profile_command_prints_a_prediction_as_json_and_from_the_cache(
    package: TinyArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    answers = []
    for _ in range(2):
        assert run(["profile", str(package.path), "--target", "apple-a17-pro", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert answers[0]["kind"] == "predicted"


def test_profile_command_shows_operations_with_their_units(
    package: TinyArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    assert run(["profile", str(package.path), "--target", "apple-m4", "--profile-ops"]) == 0
    shown = capsys.readouterr().out
    for words in ("(predicted)", "band", "bound by", "conv", "nothing ran"):
        assert words in shown
