"""A build that profiles on emulated phones: exact budgets, baselines, and a target that fails alone."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import sample_emulated

from edgekit.errors import StageCrashError, UnsupportedError
from edgekit.pipeline import run as pipeline_run
from edgekit.pipeline.plan import make_plan
from edgekit.pipeline.run import build
from edgekit.recipe import load_recipe
from edgekit.store.cache import cache_root
from edgekit.targets.emulated.setup import toolchain

if TYPE_CHECKING:
    from tests.pipeline.conftest import Project

    Built = tuple[Project, subprocess.CompletedProcess[str]]
SETTINGS = (
    *("--set", "export=[{format: tflite, precision: [fp32, int8]}, {format: executorch, precision: [int8]}]"),
    *("--set", "profile.targets=[host, pixel-4, raspberry-pi-5]"),
)


@pytest.fixture(scope="module")
def emulated(built: Built) -> Built:
    """The tiny project, built for two emulated devices with the tools of this machine."""
    try:
        toolchain()
    except UnsupportedError as error:
        pytest.skip(str(error))
    project, _ = built
    place = project.root / "cache" / "emulated"
    if not place.exists():
        place.symlink_to(cache_root() / "emulated")
    budgets = "budgets=[{artifact: '*/int8', latency_p50: {pixel-4: 1 s}}]"
    return project, project.run("build", "recipe.yaml", "-o", "builds/phones", *SETTINGS, "--set", budgets, "--json")


def profiles(document: dict[str, Any], artifact: str) -> dict[str, dict[str, Any]]:
    (found,) = [item for item in document["artifacts"] if item["id"] == artifact]
    return {profile["target"]: profile for profile in found["profiles"]}


def test_build_counts_every_artifact_on_every_phone(emulated: Built) -> None:
    _, result = emulated
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    for artifact in ("tflite/fp32", "tflite/int8", "executorch/int8"):
        found = profiles(document, artifact)
        assert [found[target]["kind"] for target in ("host", "pixel-4", "raspberry-pi-5")] == [
            "measured",
            "emulated",
            "emulated",
        ]
        assert found["pixel-4"]["instructions"] == found["raspberry-pi-5"]["instructions"]
        parity = found["pixel-4"]["parity"]
        assert parity["status"] == "pass", parity
        assert parity["versus_host"]
        assert parity["versus_source"]
        assert parity["versus_program"]


def test_budget_of_the_very_count_is_kept_and_one_less_is_broken(emulated: Built) -> None:
    project, result = emulated
    count = profiles(json.loads(result.stdout), "tflite/int8")["pixel-4"]["instructions"]
    for limit, code in ((count, 0), (count - 1, 1)):
        file = project.root / f"budgets-{code}.yaml"
        file.write_text(
            f"schema_version: 1\nbudgets:\n- {{artifact: tflite/int8, instructions: {{pixel-4: {limit}}}}}\n"
        )
        checked = project.run("check", "builds/phones", "--budgets", file.name)
        assert checked.returncode == code, checked.stdout + checked.stderr
        assert "pixel-4" in checked.stdout


def test_baseline_shows_operators_and_kernels_when_a_count_moved(emulated: Built) -> None:
    project, result = emulated
    document = json.loads(result.stdout)
    baseline = project.root / "baseline.json"
    baseline.write_text(json.dumps(document))
    assert project.run("check", "builds/phones", "--baseline", baseline.name).returncode == 0
    profile = profiles(document, "tflite/int8")["pixel-4"]
    largest = max(profile["operators"], key=lambda operator: operator["instructions"])
    profile["instructions"] -= 100
    largest["instructions"] -= 100
    largest["kernel"] = "an_older_kernel"
    baseline.write_text(json.dumps(document))
    checked = project.run("check", "builds/phones", "--baseline", baseline.name, "--json")
    assert checked.returncode == 1, checked.stderr
    broken = [v for v in json.loads(checked.stdout)["verdicts"] if v["status"] == "fail"]
    assert [verdict["check"] for verdict in broken] == ["instructions_vs_baseline"]
    assert largest["name"] in broken[0]["message"]
    assert "an_older_kernel → " in broken[0]["message"]
    assert broken[0]["details"]


def test_report_labels_the_phones_figures(emulated: Built) -> None:
    project, _ = emulated
    page = (project.root / "builds/phones/report.html").read_text(encoding="utf-8")
    assert "pixel-4 (emulated)" in page
    assert "host (measured)" in page


def test_failing_target_leaves_the_others_alone_and_is_exit_3(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(project.root / "cache"))
    monkeypatch.setattr(pipeline_run, "check_usable", lambda devices: None)

    def profile(runner: object, call: Any, device: Any) -> object:
        if device.name != "pixel-4":
            raise StageCrashError(f"the guest was ended by SIGSEGV on {device.name}", stage=call.name)
        return sample_emulated.profile("tflite/fp32")

    monkeypatch.setattr(pipeline_run, "run_profile", profile)
    targets = "profile.targets=[raspberry-pi-4, pixel-4, raspberry-pi-5]"
    changes = ["export=[{format: onnx}]", "compress=[]", "budgets=[]", targets]
    outcome = build(make_plan(load_recipe(project.root / "recipe.yaml", changes)), project.root / "out", jobs=1)
    (report,) = outcome.manifest.artifacts
    assert outcome.exit_code == 3
    assert [found.target for found in report.profiles] == ["pixel-4"]
    assert report.error is not None
    assert report.error.stage == "profile:onnx/fp32@raspberry-pi-4"
    assert [error.stage for error in report.other_errors] == ["profile:onnx/fp32@raspberry-pi-5"]
