from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import fake_sessions
import numpy as np
import psutil
import pytest
from contracts.target_contract import MeasuredTargetContract

from edgekit.errors import ArtifactError, StageCrashError, TargetError
from edgekit.process import run_child
from edgekit.records import MeasuredProfile, ProfileConfig
from edgekit.targets import ProfileRequest, load_device
from edgekit.targets.host.machine import describe_machine
from edgekit.targets.host.run import profile_on_host

TESTS = Path(__file__).resolve().parents[2]
ENTRY = "edgekit.targets.host.run:profile_on_host"


@pytest.fixture(autouse=True)
def children_find_the_fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def device_file(tmp_path: Path) -> Path:
    path = tmp_path / "here.yaml"
    path.write_text("schema_version: 1\nname: here\nkind: host\ndescription: this machine\n", encoding="utf-8")
    return path


@pytest.fixture
def request_for(device_file: Path, tmp_path: Path) -> ProfileRequest:
    return ProfileRequest(
        artifact=fake_sessions.write_artifact(tmp_path / "model.json", busy_ms=1.0),
        artifact_id="tflite/fp32",
        format="tflite",
        open_session=fake_sessions.OPEN,
        reference=None,
        device=load_device(device_file).model_dump(mode="json"),
        config=ProfileConfig(num_runs=9, warmup_runs=2),
        work_dir=tmp_path,
    )


class TestHostContract(MeasuredTargetContract):
    kind = "host"

    @pytest.fixture
    def device_file(self, device_file: Path) -> Path:
        return device_file

    @pytest.fixture
    def request_for(self, request_for: ProfileRequest) -> ProfileRequest:
        return request_for


def test_profile_median_is_the_time_of_the_work(request_for: ProfileRequest) -> None:
    latency = profile_on_host(request_for).latency_ms
    assert latency.min >= 1.0
    assert latency.p5 < 2.0  # the fastest runs of a busy machine still show the work itself
    assert latency.init_cold is not None


def test_profile_leaves_the_affinity_as_it_was(request_for: ProfileRequest) -> None:
    before = os.sched_getaffinity(0)
    profile = profile_on_host(request_for)
    assert os.sched_getaffinity(0) == before
    assert profile.machine["pinned_to"].startswith("cores ")


def test_profile_pins_to_the_cores_of_the_device_file(request_for: ProfileRequest) -> None:
    core = max(os.sched_getaffinity(0))
    pinned = replace(request_for, device=request_for.device | {"cpus": [core]})
    assert profile_on_host(pinned).machine["pinned_to"] == f"cores {core}"


def test_profile_error_names_the_cores_when_they_do_not_exist(request_for: ProfileRequest) -> None:
    with pytest.raises(TargetError, match=r"may not use cores \[4096\]"):
        profile_on_host(replace(request_for, device=request_for.device | {"cpus": [4096]}))


def test_profile_says_so_when_threads_share_cores(request_for: ProfileRequest) -> None:
    many = replace(request_for, config=replace(request_for.config, num_threads=len(os.sched_getaffinity(0)) + 1))
    assert any("share" in note for note in profile_on_host(many).notes)


def test_profile_has_operators_when_the_runtime_can_tell(request_for: ProfileRequest, tmp_path: Path) -> None:
    artifact = fake_sessions.write_artifact(tmp_path / "model.json", operators=1)
    config = replace(request_for.config, profile_ops=True)
    profile = profile_on_host(replace(request_for, artifact=artifact, config=config))
    assert [entry.type for entry in profile.operators] == ["MUL"]


def test_profile_says_why_it_has_no_operators_when_the_runtime_cannot_tell(request_for: ProfileRequest) -> None:
    profile = profile_on_host(replace(request_for, config=replace(request_for.config, profile_ops=True)))
    assert profile.operators == ()
    assert "no operator times: the fake runtime has no profiler" in profile.notes


def test_profile_keeps_its_latencies_when_the_operator_profiler_fails(
    request_for: ProfileRequest, tmp_path: Path
) -> None:
    artifact = fake_sessions.write_artifact(tmp_path / "model.json", operators="broken")
    config = replace(request_for.config, profile_ops=True)
    profile = profile_on_host(replace(request_for, artifact=artifact, config=config))
    assert profile.latency_ms.samples
    assert "no operator times: the profiler failed" in profile.notes


def test_profile_peak_memory_holds_what_a_run_takes_and_frees(request_for: ProfileRequest, tmp_path: Path) -> None:
    held, burst = 8 << 20, 24 << 20
    artifact = fake_sessions.write_artifact(tmp_path / "model.json", hold_bytes=held, burst_bytes=burst)
    memory = profile_on_host(replace(request_for, artifact=artifact)).memory_bytes
    tolerance = 2 << 20
    assert memory.init == pytest.approx(held, abs=tolerance)
    assert memory.peak == pytest.approx(held + burst, abs=tolerance)


def test_profile_feeds_the_first_reference_sample(request_for: ProfileRequest, tmp_path: Path) -> None:
    reference = tmp_path / "reference.npz"
    np.savez(reference, input_0=np.zeros((3, 5), np.float32))  # 5 columns: refused by a model that takes 4
    with pytest.raises(Exception, match=r"expected \[N, 4\]; received \(1, 5\)"):
        profile_on_host(replace(request_for, reference=reference))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_profile_error_names_the_reference_when_it_is_truncated(
    request_for: ProfileRequest, tmp_path: Path, content: bytes
) -> None:
    reference = tmp_path / "reference.npz"
    reference.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"reference\.npz"):
        profile_on_host(replace(request_for, reference=reference))


def test_profile_alone_fails_when_the_runtime_aborts(request_for: ProfileRequest, tmp_path: Path) -> None:
    artifact = fake_sessions.write_artifact(tmp_path / "model.json", abort=1)
    with pytest.raises(StageCrashError, match="SIGABRT"):
        run_child(
            ENTRY,
            replace(request_for, artifact=artifact),
            MeasuredProfile,
            stage="profile:host:tflite/fp32",
            log=tmp_path / "log",
        )


def test_busy_machine_is_noted(request_for: ProfileRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "getloadavg", lambda: (9.0, 9.0, 9.0))
    assert any(note.startswith("busy: the load average is 9.0") for note in profile_on_host(request_for).notes)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (0.0, 9.0, 9.0))
    assert not any(note.startswith("busy") for note in profile_on_host(request_for).notes)


def test_machine_names_cpu_cores_and_load() -> None:
    machine = describe_machine()
    assert {"cpu", "cores", "load_average", "memory", "system"} <= machine.keys()
    assert all(machine.values())
