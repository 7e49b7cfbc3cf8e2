"""The whole way on a real runtime: a ``.tflite`` in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_tflite import write_tflite

from edgekit.errors import ArtifactError
from edgekit.process import run_child
from edgekit.recipe.schema import VerifySection
from edgekit.records import MeasuredProfile, ProfileConfig, Program, TensorSpec
from edgekit.targets import ProfileRequest, find_device, target_spec
from edgekit.verify import VERIFY_ENTRY, VerifyRequest, VerifyResult

OPEN = "edgekit.formats.tflite.session:open_session"
WEIGHTS = np.random.default_rng(2).normal(size=(512, 1024)).astype(np.float32)
SAMPLES = np.random.default_rng(3).normal(size=(5, 1024)).astype(np.float32)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_tflite(tmp_path / "dense.tflite", WEIGHTS)


def profile(artifact: Path, folder: Path, *, reference: Path | None = None) -> MeasuredProfile:
    device = find_device("host")
    request = ProfileRequest(
        artifact=artifact,
        artifact_id="tflite/fp32",
        format="tflite",
        open_session=OPEN,
        reference=reference,
        device=device.model_dump(mode="json"),
        config=ProfileConfig(num_runs=20, warmup_runs=5),
        work_dir=folder,
    )
    entry = target_spec(device.kind, place="test").profile
    return run_child(entry, request, MeasuredProfile, stage="profile", log=folder / "profile.log")


def test_profile_of_litert_is_plausible(artifact: Path, tmp_path: Path) -> None:
    found = profile(artifact, tmp_path)
    assert found.runtime.name == "LiteRT"
    assert found.runtime.delegates == ("XNNPACK",)
    assert 0.005 < found.latency_ms.min < 50  # half a million multiply-accumulates
    weight_bytes = WEIGHTS.nbytes
    assert 0.5 * weight_bytes < found.memory_bytes.peak < 10 * weight_bytes


def test_profile_feeds_a_real_sample_when_there_is_a_reference(artifact: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference.npz"
    np.savez(reference, input_0=SAMPLES)
    assert len(profile(artifact, tmp_path, reference=reference).latency_ms.samples) == 20


def test_profile_error_names_the_artifact_when_it_is_cut_off(artifact: Path, tmp_path: Path) -> None:
    artifact.write_bytes(artifact.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"dense\.tflite"):
        profile(artifact, tmp_path)


@pytest.mark.parametrize(("factor", "status"), [(1.0, "pass"), (1.001, "fail")])
def test_verify_of_litert_tells_the_right_reference_from_a_wrong_one(
    artifact: Path, tmp_path: Path, factor: float, status: str
) -> None:
    wanted = (SAMPLES @ WEIGHTS.T) * np.float32(factor)
    reference = tmp_path / "reference.npz"
    np.savez(reference, input_0=SAMPLES, source_output_0=wanted, program_output_0=wanted)
    program = Program(
        path=tmp_path / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 1024)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 512)),),
        reference=reference,
        calibration=None,
        output_steps=(None,),
    )
    request = VerifyRequest(
        artifact=artifact,
        precision="fp32",
        dynamic_batch=False,
        open_session=OPEN,
        program=program,
        verify=VerifySection(),
    )
    parity = run_child(VERIFY_ENTRY, request, VerifyResult, stage="verify", log=tmp_path / "verify.log").parity
    assert parity.status == status, parity.reason
