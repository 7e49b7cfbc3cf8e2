"""Two builds side by side: what is better, worse, noise, or cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sample_builds

from edgekit.records import Manifest, from_json, to_json
from edgekit.report.compare import ComparedFigure, Comparison, compare_builds, training_rate

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
    assert [one.name for one in found.training] == ["training_rate", "training_time", "source_accuracy"]
    assert found.notes == (
        "onnx/int8 does not agree with its model in digits (first) and digits (second): being better says nothing",
    )


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
    assert f"{NAME} on host: the times are not comparable with those of digits (first), " in found.notes[0]
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
    rate, time, accuracy = compare_builds(build, on_gpu).training
    assert (rate.standing, time.standing) == ("not comparable", "not comparable")
    assert (accuracy.standing, accuracy.change) == ("better", "+0.39 points")


def test_training_is_left_out_when_neither_build_trained(build: Manifest) -> None:
    bare = replace(build, training=None, source_accuracy=None)
    assert compare_builds(bare, bare).training == ()


def test_comparison_is_equal_when_read_back_from_json(build: Manifest) -> None:
    found = compare_builds(build, replace(build, artifacts=build.artifacts[1:]))
    assert from_json(Comparison, to_json(found)) == found


@pytest.fixture(scope="module")
def twins() -> Comparison:
    return compare_builds(*sample_builds.twins())


def test_rivals_are_named_by_their_frameworks_when_these_differ(twins: Comparison) -> None:
    assert twins.heads == ("digits-pytorch", "digits-keras")
    assert twins.word(figure(twins, "size").standing) == "Keras better"
    assert twins.word(figure(twins, "latency_p50", "executorch/int8").standing) == "PyTorch better"
    assert twins.word(twins.artifacts[-1].standing) == "only in PyTorch"
    assert twins.word("within noise") == "within noise"


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (("kws", "kws"), ("kws (PyTorch)", "kws (Keras)")),
        (("kws-pytorch", "kws"), ("kws-pytorch (PyTorch)", "kws (Keras)")),
        (("kws_PyTorch", "keras-kws"), ("kws_PyTorch", "keras-kws")),
    ],
)
def test_columns_name_the_framework_when_the_builds_do_not(names: tuple[str, str], heads: tuple[str, str]) -> None:
    first, second = sample_builds.twins()
    assert compare_builds(replace(first, name=names[0]), replace(second, name=names[1])).heads == heads


def test_standings_stay_plain_when_the_framework_is_the_same(build: Manifest) -> None:
    found = compare_builds(build, replace(build, name="next"))
    assert found.heads == ("digits", "next")
    assert [found.word(word) for word in ("better", "worse", "only before")] == ["better", "worse", "only in digits"]


def test_accuracies_of_rivals_are_within_noise_when_few_samples_differ(twins: Comparison) -> None:
    assert figure(twins, "accuracy").standing == figure(twins, "accuracy_drop").standing == "within noise"
    first, second = sample_builds.twins()
    report = sample_builds.find(second, NAME)
    much = replace(report, parity=sample_builds.parity(33.9, 0.88, steps=1))
    found = compare_builds(first, sample_builds.with_artifact(second, much))
    assert figure(found, "accuracy").standing == "worse"


def test_training_and_coverage_stand_side_by_side(twins: Comparison) -> None:
    rate, time, accuracy = twins.training
    assert (rate.before, rate.after, rate.change) == (5334.0, 3200.4, "−2,134 samples/s (−40.0 %)")
    assert (time.standing, twins.word(time.standing)) == ("worse", "PyTorch better")
    assert accuracy.standing == "same"
    assert (figure(twins, "delegated").before, figure(twins, "delegated_macs").before) == (0.8, 0.9994)


def test_throughput_leaves_compressing_epochs_out(build: Manifest) -> None:
    assert build.training is not None
    assert {epoch.phase for epoch in build.training.epochs} == {"train", "qat"}
    slow = [
        replace(epoch, samples_per_second=1.0) if epoch.phase == "qat" else epoch for epoch in build.training.epochs
    ]
    slower = replace(build, training=replace(build.training, epochs=tuple(slow)))
    assert training_rate(slower) == training_rate(build) == 5334.0


def test_notes_name_what_makes_a_comparison_unfair() -> None:
    first, second = sample_builds.twins()
    assert first.source is not None and second.source is not None
    first = replace(first, recipe={**first.recipe, "train": {"epochs": 20, "lr": 0.1}})
    second = replace(
        second,
        source=replace(second.source, parameters=38_430),
        data_digest="ef",
        recipe={
            **second.recipe,
            "train": {"epochs": 3, "lr": 0.1},
            "compress": [{"quantize": {"precision": "int8", "mode": "qat", "skip": ["head"]}}],
        },
        tools={**second.tools, "torch": "2.12.0", "tensorflow": "2.21.0"},
    )
    notes = " | ".join(compare_builds(first, second).notes)
    assert "38,426 parameters in digits-pytorch, 38,430 in digits-keras" in notes
    assert "the data, or their settings or code, differ" in notes
    assert "the settings of the training differ: epochs 20 → 3 |" in notes
    assert "the compression differs: none against quantize int8 qat" in notes
    assert "the versions of tools differ: torch 2.13.0+cpu → 2.12.0 |" in notes


def test_compression_is_the_same_when_only_skipped_layers_differ() -> None:
    first, second = sample_builds.twins()
    rule = {"precision": "int8", "mode": "qat"}
    first = replace(first, recipe={"compress": [{"quantize": {**rule, "skip": ["features.0"]}}]})
    second = replace(second, recipe={"compress": [{"quantize": {**rule, "skip": ["conv2d"]}}]})
    assert not [note for note in compare_builds(first, second).notes if "compression" in note]


def test_facts_tell_what_each_build_is(twins: Comparison) -> None:
    facts = {fact.name: (fact.before, fact.after) for fact in twins.facts}
    assert facts["framework"] == ("PyTorch", "Keras")
    assert facts["model"][1] == "sample_models.digits.model_keras:build"
    assert facts["training"][0] == "12 epochs on cpu, autocast none, seed 7"


def test_comparison_of_rivals_is_equal_when_read_back_from_json(twins: Comparison) -> None:
    assert from_json(Comparison, to_json(twins)) == twins
