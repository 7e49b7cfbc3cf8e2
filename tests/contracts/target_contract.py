"""What every kind of target must do. Inherit in ``tests/targets/<kind>/`` and give the fixtures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgekit.budget.figures import FIGURES
from edgekit.contracts import load_entry
from edgekit.errors import ArtifactError, TargetError, UnsupportedError
from edgekit.process import run_child
from edgekit.recipe.schema import Budget
from edgekit.records import (
    AnyProfile,
    ArtifactReport,
    EmulatedProfile,
    MeasuredProfile,
    PredictedProfile,
    Profile,
    from_json,
    to_json,
)
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

    def test_figures_that_the_kind_promises_are_figures_that_budgets_know(self) -> None:
        spec = target_spec(self.kind, place="test")
        assert set(spec.figures) <= {name for name, figure in FIGURES.items() if figure.per_target}
        assert set(spec.figures) <= set(Budget.model_fields)

    def test_what_decides_a_profile_is_the_same_when_asked_twice(self, device_file: Path) -> None:
        spec = target_spec(self.kind, place="test")
        if spec.reads is not None:
            device = load_device(device_file)
            reads = [json.dumps(load_entry(spec.reads)(device), sort_keys=True) for _ in range(2)]
            assert reads[0] == reads[1]

    def test_profile_is_whole_when_run_in_a_child(self, request_for: ProfileRequest, tmp_path: Path) -> None:
        profile = self.profiled(request_for, tmp_path)
        assert profile.artifact == request_for.artifact_id
        assert profile.target == request_for.device["name"]
        assert profile.machine
        assert profile.runtime.name
        assert profile.runtime.version
        spec = target_spec(self.kind, place="test")
        report = ArtifactReport(id=profile.artifact, artifact=None, profiles=(profile,))
        for name in spec.figures:
            assert FIGURES[name].read(report, profile.target).value is not None
        assert from_json(type(profile), to_json(profile)) == profile
        assert from_json(ArtifactReport, to_json(report)) == report
        self.check_figures(profile, request_for)

    def profiled(self, request_for: ProfileRequest, tmp_path: Path) -> Profile:
        """Profile in a child, as the pipeline does."""
        spec = target_spec(self.kind, place="test")
        profile: Profile = run_child(
            spec.profile, request_for, AnyProfile, stage="profile", log=tmp_path / "profile.log"
        )
        assert profile.kind in spec.kinds
        return profile

    def check_figures(self, profile: Profile, request_for: ProfileRequest) -> None:
        """Hold the figures of one kind of number to what they must keep among themselves."""
        raise NotImplementedError

    def test_profile_error_names_the_file_when_the_artifact_is_missing(
        self, request_for: ProfileRequest, tmp_path: Path
    ) -> None:
        request_for.artifact.unlink()
        spec = target_spec(self.kind, place="test")
        with pytest.raises(ArtifactError, match=str(request_for.artifact)):
            run_child(spec.profile, request_for, AnyProfile, stage="profile", log=tmp_path / "profile.log")


class MeasuredTargetContract(TargetContract):
    """Suite for a kind that is timed by a clock."""

    def check_figures(self, profile: Profile, request_for: ProfileRequest) -> None:
        assert isinstance(profile, MeasuredProfile)
        latency = profile.latency_ms
        assert profile.config == request_for.config
        assert len(latency.samples) == request_for.config.num_runs
        assert (
            0 < latency.min <= latency.p5 <= latency.median <= latency.p90 <= latency.p95 <= latency.p99 <= latency.max
        )
        assert latency.min <= latency.mean <= latency.max
        assert latency.init > 0
        assert latency.first > 0
        assert 0 <= profile.memory_bytes.init <= profile.memory_bytes.peak


class EmulatedTargetContract(TargetContract):
    """Suite for a kind that counts under emulation and models the time."""

    def check_figures(self, profile: Profile, request_for: ProfileRequest) -> None:
        assert isinstance(profile, EmulatedProfile)
        assert profile.instructions == profile.counts.total > 0
        assert profile.load_instructions > 0
        assert sum(operator.instructions for operator in profile.operators) <= profile.instructions
        assert all(operator.instructions == operator.counts.total for operator in profile.operators)
        assert profile.memory_bytes.peak > 0
        latency = profile.latency_ms
        assert latency is not None
        assert 0 < latency.low <= latency.median
        assert latency.high is None or latency.median <= latency.high
        assert latency.basis
        assert profile.cycles is not None
        assert profile.cycles > 0
        assert profile.parity is not None
        assert profile.parity.versus_host

    def test_counts_are_the_same_when_taken_twice(self, request_for: ProfileRequest, tmp_path: Path) -> None:
        first = self.profiled(request_for, tmp_path)
        again = self.profiled(replace(request_for, work_dir=tmp_path / "elsewhere"), tmp_path)
        assert first == again

    def test_profile_is_refused_when_several_threads_are_asked_for(
        self, request_for: ProfileRequest, tmp_path: Path
    ) -> None:
        several = replace(request_for, config=replace(request_for.config, num_threads=2))
        with pytest.raises(UnsupportedError, match="num_threads"):
            self.profiled(several, tmp_path)


class PredictedTargetContract(TargetContract):
    """Suite for a kind that reckons the time from the program and published figures, where it cannot measure."""

    def check_figures(self, profile: Profile, request_for: ProfileRequest) -> None:
        assert isinstance(profile, PredictedProfile)
        latency = profile.latency_ms
        assert 0 < latency.low <= latency.median
        assert latency.high is None or latency.median <= latency.high
        assert latency.basis
        assert profile.memory_bytes is None
        assert profile.notes
        assert profile.operators
        assert all(operator.time_ms >= 0 for operator in profile.operators)
        assert sum(operator.time_ms for operator in profile.operators) <= latency.median * (1 + 1e-9)

    def test_prediction_is_the_same_when_made_twice(self, request_for: ProfileRequest, tmp_path: Path) -> None:
        first = self.profiled(request_for, tmp_path)
        again = self.profiled(replace(request_for, work_dir=tmp_path / "elsewhere"), tmp_path)
        assert first == again
