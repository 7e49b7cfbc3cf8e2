"""The ssh kind keeps what every target keeps: through a real sshd, with LiteRT on the other side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from contracts.target_contract import MeasuredTargetContract
from ssh_server import SshServer
from tiny_tflite import write_tflite

from edgekit.records import MeasuredProfile, Profile, ProfileConfig
from edgekit.targets import ProfileRequest, load_device

WEIGHTS = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)


class TestSshTarget(MeasuredTargetContract):
    kind = "ssh"

    @pytest.fixture
    def device_file(self, tmp_path: Path, ssh_server: SshServer) -> Path:
        file = tmp_path / "box.yaml"
        file.write_text(yaml.safe_dump(ssh_server.device().model_dump(mode="json", exclude_none=True)))
        return file

    @pytest.fixture
    def request_for(self, device_file: Path, tmp_path: Path) -> ProfileRequest:
        samples = np.random.default_rng(1).normal(size=(3, 1024)).astype(np.float32)
        np.savez(tmp_path / "reference.npz", input_0=samples, source_output_0=samples @ WEIGHTS.T)
        return ProfileRequest(
            artifact=write_tflite(tmp_path / "dense.tflite", WEIGHTS),
            artifact_id="tflite/fp32",
            format="tflite",
            open_session="edgekit.formats.tflite.session:open_session",
            inspect="edgekit.formats.tflite.inspect:inspect",
            reference=tmp_path / "reference.npz",
            device=load_device(device_file).model_dump(mode="json"),
            config=ProfileConfig(num_runs=20, warmup_runs=2),
            work_dir=tmp_path / "work",
        )

    def check_figures(self, profile: Profile, request_for: ProfileRequest) -> None:
        super().check_figures(profile, request_for)
        assert isinstance(profile, MeasuredProfile)
        assert profile.runtime.name == "LiteRT"
        assert profile.memory_bytes.peak > WEIGHTS.nbytes / 2
        assert profile.compute_units == ()
        assert profile.parity is not None
        assert profile.parity.status == "pass"
        assert profile.parity.samples == 3
        assert profile.parity.versus_host[0].sqnr_db > 90
        assert profile.parity.versus_source[0].sqnr_db > 90
