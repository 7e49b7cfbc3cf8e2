"""Two builds side by side: what is better, worse, noise, or cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sample_builds

from edgekit.records import Manifest, from_json, to_json
from edgekit.report.compare import ComparedFigure, Comparison, compare_builds

NAME = "tflite/int8"


@pytest.fixture
def build() -> Manifest:
    return sample_builds.manifest()


def figure(comparison: Comparison, name: str, artifact: str = NAME) -> ComparedFigure:
    (found,) = (one for one in comparison.artifacts if one.id == artifact)
    return next(one for one in found.figures if one.name == name)


def test_builds_are_the_same_when_compared_with_themselves(build: Manifest) -> None:
    found = compare_builds(build, build)
    standings = {one.standing for artifact in found.artifacts for one in artifact.figures}
    assert standings == {"same"}
    assert [one.name for one in found.training] == ["training_rate", "source_accuracy"]
    assert found.notes == ()


def test_figures_are_better_or_worse_by_their_own_direction(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    assert report.artifact is not None
    changed = replace(
        report,
        artifact=replace(report.artifact, size_bytes=40_000),
        parity=sample_builds.parity(30.0, 0.99, steps=1),
        profiles=(sample_builds.profile(NAME, 0.4, 90_000),),
    )
    found = compare_builds(build, sample_builds.with_artifact(build, changed))
    assert figure(found, "size").standing == "better"
    assert figure(found, "size").change == "−12.2 KiB (−23.8 %)"
    assert figure(found, "accuracy").standing == "better"
    assert figure(found, "sqnr_db").standing == "worse"
    assert figure(found, "latency_p50").standing == "worse"
    assert figure(found, "max_steps").standing == "same"


def test_times_are_within_noise_when_their_samples_overlap(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    nearly = replace(
        report.profiles[0],
        latency_ms=replace(report.profiles[0].latency_ms, median=0.1831),
    )
    found = compare_builds(build, sample_builds.with_artifact(build, replace(report, profiles=(nearly,))))
    assert figure(found, "latency_p50").standing == "within noise"


def test_times_are_not_comparable_when_the_machine_differs(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    moved = replace(report.profiles[0], machine={"cpu": "another"})
    found = compare_builds(build, sample_builds.with_artifact(build, replace(report, profiles=(moved,))))
    assert figure(found, "latency_p50").standing == "not comparable"
    assert figure(found, "size").standing == "same"
    assert "another machine" in found.notes[0]


def test_artifacts_of_one_build_only_are_kept_and_marked(build: Manifest) -> None:
    shorter = replace(build, artifacts=build.artifacts[1:])
    before, after = compare_builds(build, shorter), compare_builds(shorter, build)
    assert (before.artifacts[0].id, before.artifacts[0].standing) == ("tflite/fp32", "only before")
    assert (after.artifacts[-1].id, after.artifacts[-1].standing) == ("tflite/fp32", "only after")
    assert {one.standing for one in before.artifacts[0].figures} == {"only before"}
    assert figure(before, "size", "tflite/fp32").after is None


def test_training_is_not_comparable_when_devices_differ(build: Manifest) -> None:
    assert build.training is not None
    on_gpu = replace(build, training=replace(build.training, device="cuda:0"), source_accuracy=0.99)
    rate, accuracy = compare_builds(build, on_gpu).training
    assert rate.standing == "not comparable"
    assert (accuracy.standing, accuracy.change) == ("better", "+0.39 points")


def test_training_is_left_out_when_neither_build_trained(build: Manifest) -> None:
    bare = replace(build, training=None, source_accuracy=None)
    assert compare_builds(bare, bare).training == ()


def test_comparison_is_equal_when_read_back_from_json(build: Manifest) -> None:
    found = compare_builds(build, replace(build, artifacts=build.artifacts[1:]))
    assert from_json(Comparison, to_json(found)) == found
