"""Profiles on emulated phones, end to end: the real aarch64 runtime behind a persona, on a network of one layer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.target_contract import EmulatedTargetContract
from tiny_tflite import write_tflite

from edgekit.cli.main import run
from edgekit.errors import ArtifactError, TargetError, UnsupportedError
from edgekit.pipeline.calibrate import Measurement, calibrate, forget
from edgekit.records import ProfileConfig
from edgekit.targets import ProfileRequest, find_device
from edgekit.targets.emulated import counted, timing
from edgekit.targets.emulated import run as emulated_run
from edgekit.targets.emulated.artifact_run import GuestJob, GuestSide, run_on_guest
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.counted import counted_run
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.place import place_of
from edgekit.targets.emulated.reads import estimator_of
from edgekit.targets.emulated.run import profile_emulated
from edgekit.targets.emulated.setup import toolchain
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.targets.emulated.timing import TracedRun, trace_together

pytestmark = pytest.mark.usefixtures("emulated_toolchain")
WEIGHTS = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_tflite(tmp_path / "tiny.tflite", WEIGHTS)


def request_on(device: str, artifact: Path, work: Path, **changes: object) -> ProfileRequest:
    made = ProfileRequest(
        artifact=artifact,
        artifact_id="tflite/fp32",
        format="tflite",
        open_session="edgekit.formats.tflite.session:open_session",
        reference=None,
        device=find_device(device).model_dump(mode="json"),
        config=ProfileConfig(profile_ops=True),
        work_dir=work,
        inspect="edgekit.formats.tflite.inspect:inspect",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class TestEmulatedContract(EmulatedTargetContract):
    kind = "emulated"

    @pytest.fixture
    def device_file(self, tmp_path: Path) -> Path:
        """A device of the user's own, made from a packaged one."""
        path = tmp_path / "phone.yaml"
        packaged = Path(__file__).parents[3] / "targets" / "pixel-4.yaml"
        path.write_text(
            packaged.read_text(encoding="utf-8").replace("name: pixel-4", "name: phone", 1), encoding="utf-8"
        )
        return path

    @pytest.fixture
    def request_for(self, artifact: Path, tmp_path: Path) -> ProfileRequest:
        return request_on("pixel-4", artifact, tmp_path)


def test_operators_are_named_by_layers_and_their_kernels_by_the_core(artifact: Path, tmp_path: Path) -> None:
    profile = profile_emulated(request_on("pixel-4", artifact, tmp_path))
    layer = next(operator for operator in profile.operators if operator.node == "y")
    assert layer.delegated
    assert layer.macs == 2048
    assert layer.kernel is not None
    assert layer.kernel.startswith("xnn_f32_gemm")
    assert layer.time_ms is not None
    assert 0 < layer.share < 1


def test_one_trace_serves_several_phones_when_they_run_the_same_kernels(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request_on(name, artifact, tmp_path, model="trace") for name in ("pixel-4", "raspberry-pi-5")]
    tools, wanted = toolchain(), []
    for request in requests:
        device = EmulatedDevice.model_validate(request.device)
        placed = PlacedCore(load_core(device.primary_cluster.core), place_of(device))
        job = GuestJob(request=request, tools=tools, persona=make_persona(placed.core, tools))
        wanted.append(TracedRun(run=counted_run(job), placed=placed, estimator=estimator_of(device, "trace")))
    trace_together(job, wanted)
    monkeypatch.setattr(timing, "run_on_guest", None)  # nothing is run again
    trace_together(job, wanted)
    phone, board = (profile_emulated(request) for request in requests)
    assert phone.latency_ms is not None
    assert board.latency_ms is not None
    assert phone.latency_ms.unanchored != board.latency_ms.unanchored


def test_phones_with_one_core_share_the_counts_and_differ_in_time(artifact: Path, tmp_path: Path) -> None:
    phone = profile_emulated(request_on("pixel-4", artifact, tmp_path))
    board = profile_emulated(request_on("raspberry-pi-5", artifact, tmp_path))
    assert phone.persona == board.persona
    assert phone.instructions == board.instructions
    assert phone.counts == board.counts
    assert phone.latency_ms is not None
    assert board.latency_ms is not None
    assert phone.latency_ms.median != board.latency_ms.median


def test_another_core_gets_other_kernels(artifact: Path, tmp_path: Path) -> None:
    big = profile_emulated(request_on("pixel-4", artifact, tmp_path, model="counts"))
    little = profile_emulated(request_on("raspberry-pi-3b-plus", artifact, tmp_path, model="counts"))
    assert big.persona != little.persona
    kernels = [next(o.kernel for o in profile.operators if o.node == "y") for profile in (big, little)]
    assert kernels[0] != kernels[1]


def test_operators_are_listed_once_when_processors_have_the_same_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []

    def note_listing(*arguments: Any, operators: bool, **others: Any) -> GuestSide:
        listed.append(operators)
        return run_on_guest(*arguments, operators=operators, **others)

    monkeypatch.setattr(counted, "run_on_guest", note_listing)
    unseen = np.random.default_rng().normal(size=WEIGHTS.shape).astype(np.float32)  # no run of it is kept
    artifact = write_tflite(tmp_path / "unseen.tflite", unseen)
    seen = [
        profile_emulated(request_on(name, artifact, tmp_path, model="counts"))
        for name in ("raspberry-pi-4", "pixel-2", "pixel-4")
    ]
    assert listed == [True, False, True]  # the last has half-precision arithmetic
    names = [[operator.name for operator in profile.operators] for profile in seen]
    assert names[0] == names[1]
    assert any(operator.node == "y" for operator in seen[1].operators)


def test_counts_give_no_time(artifact: Path, tmp_path: Path) -> None:
    profile = profile_emulated(request_on("pixel-4", artifact, tmp_path, model="counts"))
    assert (profile.latency_ms, profile.cycles) == (None, None)
    assert all(operator.time_ms is None for operator in profile.operators)
    assert profile.instructions > 0


def test_trace_gives_another_time_to_the_same_counts(artifact: Path, tmp_path: Path) -> None:
    static = profile_emulated(request_on("pixel-4", artifact, tmp_path))
    trace = profile_emulated(request_on("pixel-4", artifact, tmp_path, model="trace"))
    assert trace.instructions == static.instructions
    assert trace.latency_ms is not None
    assert trace.latency_ms.median > 0
    assert trace.cycles != static.cycles


def test_outputs_are_compared_with_the_source_when_there_is_a_reference(artifact: Path, tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    outputs = inputs @ WEIGHTS.T
    reference = tmp_path / "reference.npz"
    np.savez(reference, input_0=inputs, source_output_0=outputs, program_output_0=outputs)
    parity = profile_emulated(request_on("pixel-4", artifact, tmp_path, reference=reference)).parity
    assert parity is not None
    assert (parity.status, parity.samples) == ("pass", 2)
    assert parity.versus_source[0].sqnr_db > 90
    assert parity.versus_program[0].sqnr_db > 90


def test_finding_is_noted_when_the_phone_computes_something_else(artifact: Path, tmp_path: Path) -> None:
    """This machine's session is told to multiply by two: the same as a phone that does not."""
    request = request_on("pixel-4", artifact, tmp_path, open_session=f"{__name__}:open_doubling")
    profile = profile_emulated(replace(request, config=replace(request.config, seed=77)))
    assert profile.parity is not None
    assert profile.parity.status == "fail"
    assert any(note.startswith("finding: the phone's kernels do not compute") for note in profile.notes)


def open_doubling(path: Path, num_threads: int) -> object:
    """A session whose outputs are twice what the artifact says."""
    from edgekit.formats.tflite.session import open_session

    session = open_session(path, num_threads)
    run_it = session.run
    session.run = lambda inputs: tuple(2 * output for output in run_it(inputs))  # type: ignore[method-assign]
    return session


@pytest.mark.parametrize(("content", "kind"), [(b"", ArtifactError), (b"TFL3 but no more", ArtifactError)])
def test_broken_artifact_is_named(tmp_path: Path, content: bytes, kind: type[Exception]) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(content)
    with pytest.raises(kind, match=r"broken\.tflite"):
        profile_emulated(request_on("pixel-4", broken, tmp_path))


def test_core_ml_is_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no aarch64 Linux library"):
        profile_emulated(request_on("pixel-4", artifact, tmp_path, format="coreml"))


def test_device_of_another_kind_is_refused(artifact: Path, tmp_path: Path) -> None:
    device = {"schema_version": 1, "name": "x", "kind": "host", "description": "x"}
    with pytest.raises(TargetError, match="device file of kind 'emulated'"):
        profile_emulated(replace(request_on("pixel-4", artifact, tmp_path), device=device))


def test_command_prints_the_contract_keys(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(artifact), "--target", "pixel-4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "emulated"
    assert found["latency_ms"]["median"] > 0
    assert found["latency_ms"]["basis"]
    assert found["instructions"] > 0
    assert found["cycles"] > 0
    assert found["memory_bytes"]["peak"] > 0
    assert {"name", "type", "delegated", "reason", "time_ms", "share", "macs"} <= found["operators"][0].keys()


def test_measurement_scales_the_estimate_until_it_is_forgotten(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = profile_emulated(request_on("pixel-4", artifact, tmp_path)).latency_ms
    assert before is not None
    measured = Measurement(artifact=artifact, measured_ms=before.median * 1.25)
    found = calibrate("pixel-4", [measured], ["static"], project=True)
    assert found.layers[0].factor == pytest.approx(1.25)
    after = profile_emulated(request_on("pixel-4", artifact, tmp_path)).latency_ms
    assert after is not None
    assert after.median == pytest.approx(before.median * 1.25)
    assert after.unanchored == before.median
    assert after.basis.startswith("anchored on tiny.tflite = ")
    monkeypatch.setattr(emulated_run, "estimator_of", lambda device, layer: "changed")
    stale = profile_emulated(request_on("pixel-4", artifact, tmp_path))
    assert stale.latency_ms is not None
    assert stale.latency_ms.median == before.median
    assert any("is stale" in note for note in stale.notes)
    assert forget("pixel-4", project=True).forgotten is not None
