"""What emulated devices refuse before any work: artifacts, threads, figures, a missing tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekit.cli.main import run
from edgekit.errors import RecipeError, TargetError, UnsupportedError
from edgekit.pipeline import devices
from edgekit.pipeline.devices import check_model, check_usable, decided_by, refusal
from edgekit.pipeline.plan import Plan, make_plan
from edgekit.recipe import parse_recipe
from edgekit.targets import Diagnosis, find_device

BASE = """
schema_version: 1
name: plan
model: tiny_model:build
data: {module: tiny_data:load}
train: {epochs: 1}
export: [{format: tflite, precision: [fp32, int8]}]
profile: {targets: [host, pixel-4]}
"""


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(request.path.parent / "project")


def plan(**changes: Any) -> Plan:
    return make_plan(parse_recipe({**yaml.safe_load(BASE), **changes}, "test"))


def test_emulated_device_takes_its_place_beside_the_host() -> None:
    assert [device.kind for device in plan().devices] == ["host", "emulated"]


def test_artifact_that_cannot_run_there_is_left_out_with_the_reason() -> None:
    made = plan(export=[{"format": "tflite"}, {"format": "executorch", "backend": "coreml"}])
    device = made.devices[1]
    assert refusal(device, "tflite", None) is None
    assert refusal(device, "executorch", None) is None
    assert refusal(device, "executorch", "portable") is None
    assert refusal(device, "onnx", None) is None
    for name, backend in (("coreml", None), ("executorch", "coreml")):
        reason = refusal(device, name, backend)  # type: ignore[arg-type]
        assert reason is not None
        assert "Core ML exists on Apple systems only" in reason
    assert refusal(made.devices[0], "tflite", None) is None


def test_plan_warns_of_artifacts_that_a_device_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    export = [{"format": "tflite"}, {"format": "coreml", "precision": "fp16"}]
    warnings = " ".join(plan(export=export).warnings)
    assert "coreml/fp16" in warnings
    assert "tflite/fp32: not profiled" not in warnings


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"latency_p95": {"pixel-4": "2 ms"}}, "pixel-4.* gives no p95 latency; it gives: latency_p50, instructions"),
        ({"instructions": {"host": "2 M"}}, "host.* gives no instructions; it gives: latency_p50, latency_p95"),
    ],
)
def test_budget_is_refused_when_its_target_does_not_give_the_figure(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(budgets=[{"artifact": "tflite/int8", **budget}])


def test_latency_budget_is_refused_when_only_counts_are_taken() -> None:
    budgets = [{"artifact": "tflite/int8", "latency_p50": {"pixel-4": "2 ms"}}]
    assert plan(budgets=budgets)
    with pytest.raises(RecipeError, match=r"profile\.model is 'counts'"):
        plan(budgets=budgets, profile={"targets": ["pixel-4"], "model": "counts"})
    counted = [{"artifact": "tflite/int8", "instructions": {"pixel-4": "2 M"}}]
    assert plan(budgets=counted, profile={"targets": ["pixel-4"], "model": "counts"})


def test_several_threads_are_refused_on_an_emulated_device_only() -> None:
    with pytest.raises(UnsupportedError, match=r"profile\.num_threads: 2 threads on pixel-4 .*one thread only"):
        plan(profile={"targets": ["host", "pixel-4"], "num_threads": 2})
    assert plan(profile={"targets": ["host"], "num_threads": 2})


def test_build_is_refused_before_work_when_a_device_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "qemu-aarch64 is missing: run `edgekit targets setup emulated`"
    monkeypatch.setattr(
        devices, "diagnose", lambda device: Diagnosis(device=device.name, usable=False, facts={}, problems=(problem,))
    )
    with pytest.raises(TargetError, match=r"pixel-4 cannot be profiled on from here: .*edgekit targets setup emulated"):
        check_usable([find_device("pixel-4")])


def test_model_is_chosen_for_emulated_devices_only() -> None:
    check_model(find_device("pixel-4"), "trace")
    check_model(find_device("host"), None)
    with pytest.raises(UnsupportedError, match="timed by a clock"):
        check_model(find_device("host"), "static")


def test_choice_of_model_decides_an_emulated_profile_and_no_measured_one() -> None:
    host, phone = find_device("host"), find_device("pixel-4")
    assert decided_by(host, "static") == decided_by(host, "trace") == {}
    assert decided_by(phone, "static") != decided_by(phone, "trace")
    assert decided_by(phone, "static") == decided_by(phone, "static")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "pixel-4", "--num-threads", "2"], "--num-threads: 2 threads on pixel-4"),
        (["--target", "host", "--model", "static"], "timed by a clock"),
    ],
)
def test_profile_command_refuses_what_the_target_cannot_do(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = tmp_path / "model.tflite"
    artifact.write_bytes(b"anything")
    assert run(["profile", str(artifact), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_profile_command_refuses_core_ml_on_an_emulated_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text("{}")
    assert run(["profile", str(package), "--target", "pixel-4"]) == 2
    assert "Core ML exists on Apple systems only" in capsys.readouterr().err
