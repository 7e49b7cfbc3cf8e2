"""A package measured on a Mac: real ssh, the real script in real processes, and a Python that believes to be there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fake_mac import FakeMac
from ssh_server import SshServer
from tiny_package import write_package

from edgekit.errors import StageTimeoutError, TargetError, ToolError
from edgekit.records import ProfileConfig
from edgekit.targets import ProfileRequest
from edgekit.targets.ssh.machine import decided_by, diagnose_ssh
from edgekit.targets.ssh.run import profile_over_ssh
from edgekit.targets.ssh.spec import SshDevice

WEIGHTS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
SAMPLES = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("package") / "net.mlpackage", WEIGHTS)


@pytest.fixture
def mac(ssh_server: SshServer, fake_mac: FakeMac) -> SshDevice:
    fake_mac.computes(WEIGHTS)
    return ssh_server.device(name="mac", python=fake_mac.python)


@pytest.fixture
def request_to(package: Path, tmp_path: Path):
    np.savez(tmp_path / "reference.npz", input_0=SAMPLES, source_output_0=SAMPLES @ WEIGHTS)

    def make(device: SshDevice) -> ProfileRequest:
        return ProfileRequest(
            artifact=package,
            artifact_id="coreml/fp32",
            format="coreml",
            open_session="edgekit.formats.coreml.session:open_session",
            inspect="edgekit.formats.coreml.inspect:inspect",
            reference=tmp_path / "reference.npz",
            device=device.model_dump(mode="json"),
            config=ProfileConfig(num_runs=5, warmup_runs=1),
            work_dir=tmp_path / "work",
        )

    return make


def test_profile_holds_every_choice_of_compute_units_and_the_plan(ssh_server, mac, request_to) -> None:
    profile = profile_over_ssh(request_to(mac))
    assert profile.target == "mac"
    assert [times.compute_units for times in profile.compute_units] == list(mac.compute_units)
    assert all(len(times.latency_ms.samples) == 5 for times in profile.compute_units)
    assert profile.latency_ms == profile.compute_units[0].latency_ms
    assert profile.latency_ms.median > 1  # what its model sleeps
    assert profile.memory_bytes.peak == 30_000_000  # highest mark less the baseline, as its system says
    assert profile.machine["cpu"] == "Apple M2"
    assert profile.machine["cores"] == "8 (4 performance, 4 efficiency)"
    assert profile.machine["system"] == "macOS 14.5"
    assert profile.runtime.name == "Core ML"
    assert profile.placement is not None
    assert profile.placement.kind == "measured"
    assert [operation.preferred for operation in profile.placement.operations] == ["neural_engine", "cpu"]
    assert (profile.placement.segments, profile.placement.transfers) == (2, 1)
    assert ssh_server.left_behind() == []


def test_notes_tell_of_a_hot_machine_in_low_power_mode(mac, request_to) -> None:
    notes = profile_over_ssh(request_to(mac)).notes
    assert "low power mode was on: clocks are lowered" in notes
    assert "the machine was hot: thermal state CPU_Speed_Limit 60" in notes


def test_outputs_are_compared_with_the_evaluator_and_the_model(mac, fake_mac, request_to) -> None:
    same = profile_over_ssh(request_to(mac)).parity
    assert same is not None
    assert (same.status, same.samples) == ("pass", 4)
    assert same.versus_host[0].sqnr_db > 90
    assert same.versus_source[0].sqnr_db > 90
    fake_mac.becomes(gain=1.5)
    other = profile_over_ssh(request_to(mac))
    assert other.parity is not None
    assert other.parity.status == "fail"
    assert any(note.startswith("finding: the device's kernels do not compute") for note in other.notes)


def test_half_precision_of_the_units_is_no_finding(mac, fake_mac, request_to) -> None:
    fake_mac.becomes(gain=1.001)  # 60 dB
    parity = profile_over_ssh(request_to(mac)).parity
    assert parity is not None
    assert parity.versus_host[0].sqnr_db == pytest.approx(60, abs=0.5)
    assert parity.status == "pass"


def test_unit_that_crashes_takes_no_other_with_it(ssh_server, mac, fake_mac, request_to) -> None:
    fake_mac.becomes(crashes=["CPU_AND_NE"], refuses=["CPU_AND_GPU"])
    profile = profile_over_ssh(request_to(mac))
    assert [times.compute_units for times in profile.compute_units] == ["all", "cpuOnly"]
    assert "cpuAndNeuralEngine was not timed: measure ended with status -11 and no answer" in profile.notes
    refused = "cpuAndGPU was not timed: RuntimeError: Error compiling model: the unit refuses it"
    assert refused in profile.notes
    assert ssh_server.left_behind() == []


def test_figures_are_those_of_the_first_unit_that_works(mac, fake_mac, request_to) -> None:
    fake_mac.becomes(refuses=["ALL"])
    profile = profile_over_ssh(request_to(mac))
    assert profile.latency_ms == profile.compute_units[0].latency_ms
    assert "the figures are those of cpuAndNeuralEngine, the first choice of compute units that could be timed" in (
        profile.notes
    )


def test_error_is_the_runtimes_own_when_no_unit_works(ssh_server, mac, fake_mac, request_to) -> None:
    fake_mac.becomes(refuses=["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"])
    with pytest.raises(ToolError, match="mac: RuntimeError: Error compiling model: the unit refuses it"):
        profile_over_ssh(request_to(mac))
    assert ssh_server.left_behind() == []


def test_old_macos_is_named_when_the_package_needs_a_newer_one(mac, fake_mac, request_to) -> None:
    fake_mac.becomes(macos="13.2")
    with pytest.raises(TargetError, match=r"specification version 8 needs macOS 14; this is macOS 13\.2"):
        profile_over_ssh(request_to(mac))


def test_missing_package_is_named_with_the_command_that_installs_it(mac, fake_mac, request_to) -> None:
    fake_mac.becomes(missing=["coremltools"])
    with pytest.raises(TargetError, match=r"no coremltools; install it with: \S+ -m pip install coremltools"):
        profile_over_ssh(request_to(mac))


def test_linux_is_refused_when_the_artifact_is_core_ml(ssh_server, request_to) -> None:
    with pytest.raises(TargetError, match="Core ML exists on macOS only; this is Linux"):
        profile_over_ssh(request_to(ssh_server.device()))


def test_measuring_is_stopped_and_cleaned_up_when_the_time_is_up(ssh_server, mac, fake_mac, request_to) -> None:
    fake_mac.becomes(sleep_s=600)
    impatient = mac.model_copy(update={"timeout_s": 4})
    with pytest.raises((StageTimeoutError, ToolError), match=r"ran past (its|the) limit and was stopped"):
        profile_over_ssh(request_to(impatient))
    assert ssh_server.left_behind() == []


def test_doctor_tells_what_the_machine_is(mac) -> None:
    found = diagnose_ssh(mac)
    assert found.usable
    assert found.facts["chip"] == "Apple M2"
    assert re.fullmatch(r"\d+\.\d+.*", found.facts["coremltools"])
    assert found.problems == ("low power mode is on, so clocks are lowered",)


def test_doctor_says_what_is_missing(mac, fake_mac) -> None:
    fake_mac.becomes(missing=["coremltools", "ai_edge_litert", "executorch", "onnxruntime", "numpy"])
    found = diagnose_ssh(mac)
    assert not found.usable
    assert [problem.partition(";")[0] for problem in found.problems[:1]] == [f"its {mac.python} has no numpy"]


def test_another_system_over_there_is_another_profile(mac, fake_mac) -> None:
    before = decided_by(mac)
    assert decided_by(mac) == before
    fake_mac.becomes(macos="15.0")
    from edgekit.targets.ssh.machine import _known

    _known.cache_clear()
    assert decided_by(mac) != before
