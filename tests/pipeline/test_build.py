"""The whole journey, as a user runs it."""

import json
import os
import signal
import subprocess
import time

import pytest

from edgekit.records import Manifest, from_json
from edgekit.store import digest_path


def test_build_makes_runs_verifies_and_profiles_every_artifact(built):
    project, result = built
    assert result.returncode == 0, result.stderr
    manifest = from_json(Manifest, json.loads(result.stdout))
    assert [item.id for item in manifest.artifacts] == ["tflite/fp32", "tflite/int8", "executorch/int8", "onnx/fp32"]
    for item in manifest.artifacts:
        assert item.error is None
        assert item.parity.status == "pass"
        assert item.parity.samples == 32
        path = project.root / "builds/tiny" / item.artifact.path
        assert digest_path(path) == item.artifact.sha256
        assert item.profiles[0].kind == "measured"
        assert item.profiles[0].latency_ms.median > 0
        assert item.profiles[0].operators
    assert {verdict.check for verdict in manifest.artifacts[1].verdicts} == {
        "size",
        "latency_p50",
        "sqnr_db",
        "delegated",
    }
    assert json.loads(result.stdout) == project.manifest()


def test_int8_artifacts_of_a_convolutional_net_agree_to_the_bit(built):
    project, _ = built
    tflite, executorch = (project.artifact(name)["parity"] for name in ("tflite/int8", "executorch/int8"))
    assert tflite["versus_source"] == executorch["versus_source"]
    assert tflite["versus_program"] == executorch["versus_program"]
    assert tflite["versus_program"][0]["max_steps"] <= 1


def test_second_build_does_no_work_within_two_seconds(built):
    project, _ = built
    before = project.manifest()
    start = time.perf_counter()
    result = project.run("build", "recipe.yaml", "--json")
    seconds = time.perf_counter() - start
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == before
    assert "…" not in result.stderr, "a stage was started"
    assert seconds < 2.0


def test_changed_setting_repeats_only_what_reads_it(built):
    project, _ = built
    result = project.run("build", "recipe.yaml", "-o", "builds/other", "--set", "verify.max_steps=2",
                         "--set", "export=[{format: tflite, precision: [fp32, int8]}]")  # fmt: skip
    assert result.returncode == 0, result.stderr
    started = {line.split()[-1] for line in result.stderr.splitlines() if "…" in line}
    assert started
    assert all(stage.startswith("verify:") for stage in started)


def test_change_of_the_models_code_repeats_the_training(built):
    project, _ = built
    model = project.root / "tiny_model.py"
    text = model.read_text()
    try:
        model.write_text(text + "\n# changed\n")
        process = _started(project, *SMALL, "-o", "builds/changed")
        _wait_for_stage(process, "…  train")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        model.write_text(text)


def test_broken_budget_is_exit_1_and_a_table_of_limit_and_value(built):
    project, _ = built
    budgets = '[{artifact: "tflite/int8", size: 1 KiB}]'
    result = project.run("build", "recipe.yaml", "-o", "builds/broken", "--set", f"budgets={budgets}")
    assert result.returncode == 1, result.stderr
    assert "size" in result.stdout
    assert "1.0 KiB" in result.stdout


def test_failed_comparison_is_exit_1_and_says_why(built):
    project, _ = built
    result = project.run("build", "recipe.yaml", "-o", "builds/strict", "--set", "verify.min_sqnr_db=200",
                         "--set", "export=[{format: tflite, precision: [int8]}]", "--set", "budgets=[]")  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert "tflite/int8" in result.stderr
    assert "200" in result.stderr


def test_verify_runs_the_files_that_lie_there(built):
    project, _ = built
    result = project.run("verify", "builds/tiny", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["passed"]
    assert {item["parity"]["status"] for item in document["parities"]} == {"pass"}


def test_verify_refuses_an_artifact_that_was_changed(built, tmp_path):
    project, _ = built
    subprocess.run(["cp", "-r", str(project.root / "builds/tiny"), str(tmp_path / "copy")], check=True)
    artifact = next((tmp_path / "copy/artifacts/tflite").iterdir())
    artifact.write_bytes(artifact.read_bytes() + b"x")
    result = project.run("verify", str(tmp_path / "copy"))
    assert result.returncode == 2
    assert "has changed since the build" in result.stderr


def test_profile_inspect_compare_and_check_work_on_what_was_built(built):
    project, _ = built
    folder = project.root / "builds/tiny/artifacts"
    tflite, pte = next((folder / "tflite").glob("*-int8.tflite")), next((folder / "executorch").glob("*.pte"))
    profile = project.run("profile", str(tflite), "--target", "host", "--num-runs", "5", "--json")
    assert json.loads(profile.stdout)["config"]["num_runs"] == 5, profile.stderr
    inspection = project.run("inspect", str(tflite), "--json")
    assert json.loads(inspection.stdout)["format"] == "tflite", inspection.stderr
    comparison = project.run("compare", str(tflite), str(pte), "--json")
    assert json.loads(comparison.stdout)["runs"]["parity"][0]["max_abs_error"] == 0, comparison.stderr
    same = project.run("compare", "builds/tiny", "builds/tiny", "--artifact", "tflite/int8", "--json")
    assert json.loads(same.stdout)["runs"]["parity"][0]["max_abs_error"] == 0, same.stderr
    check = project.run(
        "check", "builds/tiny", "--junit", "junit.xml", "--markdown", "summary.md", "--baseline", "builds/tiny"
    )
    assert check.returncode == 0, check.stderr
    assert "<testsuite" in (project.root / "junit.xml").read_text()
    assert "tflite/int8" in (project.root / "summary.md").read_text()


def test_program_is_kept_with_the_build_and_held_only_against_what_can_be_looked_into(built):
    project, _ = built
    assert (project.root / "builds/tiny/reference/int8.pt2").is_file()
    for arguments, words in (
        (("builds/tiny", "--artifact", "tflite/int8"), "only coreml artifacts show what lies between"),
        (("builds/tiny", "--artifact", "tflite/int9"), "Did you mean 'tflite/int8'"),
        (("builds/tiny",), "expected --artifact with one of builds/tiny: tflite/fp32"),
        (("elsewhere", "--artifact", "tflite/int8"), "expected a build folder"),
    ):
        result = project.run("compare", *arguments)
        assert result.returncode == 2 and words in result.stderr, result.stderr


@pytest.mark.parametrize(("how", "words"), [("abort", "SIGABRT"), ("hang", "ran past its limit of 8 s")])
def test_converter_that_fails_takes_only_its_own_artifact_down(built, how, words):
    project, _ = built
    export = "[{format: tflite}, {format: tflite, precision: [fp16], timeout: 8 s}, {format: onnx}]"
    result = project.run(
        "build", "recipe.yaml", "-o", f"builds/{how}", "--set", f"export={export}", "--set", "budgets=[]",
        "--set", "profile.targets=[]", "--set", "compress=[]", TINY_PROJECT_BREAK=f"{how}:tflite/fp16",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    failed = project.artifact("tflite/fp16", f"builds/{how}")
    assert failed["artifact"] is None
    assert failed["error"]["stage"] == "export:tflite/fp16"
    assert words in failed["error"]["message"]
    assert (project.root / f"builds/{how}" / failed["error"]["log"]).is_file()
    for name in ("tflite/fp32", "onnx/fp32"):
        assert project.artifact(name, f"builds/{how}")["parity"]["status"] == "pass"


def _started(project, *arguments):
    # a suite that runs in the background has SIGINT ignored, and children inherit that; set here and not by
    # preexec_fn, which forks this process with the threads of whatever library earlier tests have loaded
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            project.command("build", "recipe.yaml", *arguments),
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for_stage(process, words):
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"the build ended before {words!r}")


SMALL = (
    "--set", "export=[{format: onnx}]", "--set", "compress=[]", "--set", "budgets=[]",
    "--set", "profile.targets=[]",
)  # fmt: skip


def test_killed_build_resumes_and_ends_like_an_uninterrupted_one(project, built):
    for words in ("…  train", "…  export"):
        process = _started(project, *SMALL)
        _wait_for_stage(process, words)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        process.stdout.close()
        assert not (project.root / "builds/tiny/manifest.json").exists()
        assert not list((project.root / "builds/tiny").glob("artifacts/*/*"))
    result = project.run("build", "recipe.yaml", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "train  from the cache" in result.stderr
    assert project.artifact("onnx/fp32")["artifact"]["sha256"] == built[0].artifact("onnx/fp32")["artifact"]["sha256"]


def test_interrupt_is_exit_130_and_a_second_build_in_the_folder_is_refused(project):
    process = _started(project, *SMALL, "--set", "train.epochs=10000")
    _wait_for_stage(process, "…  train")
    second = project.run("build", "recipe.yaml", *SMALL)
    assert second.returncode == 2
    assert "another build is writing" in second.stderr
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
