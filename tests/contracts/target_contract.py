"""What every kind of target must do. Inherit in ``tests/targets/<kind>/`` and give the fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from edgekit.contracts import load_entry
from edgekit.errors import ArtifactError, TargetError
from edgekit.process import run_child
from edgekit.records import MeasuredProfile, from_json, to_json
from edgekit.targets import Device, Diagnosis, ProfileRequest, load_device, target_spec


class TargetContract:
    """Suite for one kind."""

    kind: str
    """Under test."""

    @pytest.fixture
    def device_file(self, tmp_path: Path) -> Path:
        """A valid device file of the kind."""
        raise NotImplementedError

    @pytest.fixture
    def request_for(self, device_file: Path, tmp_path: Path) -> ProfileRequest:
        """A profile that works on that device, of at least 5 runs."""
        raise NotImplementedError

    def test_spec_names_its_folder_and_its_entries_exist(self) -> None:
        spec = target_spec(self.kind, place="test")
        assert spec.kind == self.kind
        assert issubclass(load_entry(spec.device), Device)
        assert callable(load_entry(spec.profile))
        assert callable(load_entry(spec.diagnose))

    def test_device_model_refuses_unknown_keys_and_is_immutable(self, device_file: Path) -> None:
        model = load_entry(target_spec(self.kind, place="test").device)
        assert issubclass(model, BaseModel)
        assert model.model_config["extra"] == "forbid"
        assert model.model_config["frozen"] is True

    def test_device_survives_json(self, device_file: Path) -> None:
        device = load_device(device_file)
        assert type(device).model_validate(device.model_dump(mode="json")) == device

    def test_device_error_names_the_key_when_it_is_unknown(self, device_file: Path) -> None:
        device_file.write_text(device_file.read_text(encoding="utf-8") + "\nnumber_of_wings: 2\n", encoding="utf-8")
        with pytest.raises(TargetError, match=r"unknown key 'number_of_wings'"):
            load_device(device_file)

    def test_diagnosis_is_about_the_device(self, device_file: Path) -> None:
        device = load_device(device_file)
        diagnosis = load_entry(target_spec(self.kind, place="test").diagnose)(device)
        assert isinstance(diagnosis, Diagnosis)
        assert diagnosis.device == device.name
        assert diagnosis.usable or diagnosis.problems

    def test_profile_is_whole_when_run_in_a_child(self, request_for: ProfileRequest, tmp_path: Path) -> None:
        spec = target_spec(self.kind, place="test")
        profile = run_child(spec.profile, request_for, MeasuredProfile, stage="profile", log=tmp_path / "profile.log")
        latency = profile.latency_ms
        assert profile.artifact == request_for.artifact_id
        assert profile.target == request_for.device["name"]
        assert profile.config == request_for.config
        assert len(latency.samples) == request_for.config.num_runs
        assert (
            0 < latency.min <= latency.p5 <= latency.median <= latency.p90 <= latency.p95 <= latency.p99 <= latency.max
        )
        assert latency.min <= latency.mean <= latency.max
        assert latency.init > 0
        assert latency.first > 0
        assert 0 <= profile.memory_bytes.init <= profile.memory_bytes.peak
        assert profile.machine
        assert from_json(MeasuredProfile, to_json(profile)) == profile

    def test_profile_error_names_the_file_when_the_artifact_is_missing(
        self, request_for: ProfileRequest, tmp_path: Path
    ) -> None:
        request_for.artifact.unlink()
        spec = target_spec(self.kind, place="test")
        with pytest.raises(ArtifactError, match=str(request_for.artifact)):
            run_child(spec.profile, request_for, MeasuredProfile, stage="profile", log=tmp_path / "profile.log")
