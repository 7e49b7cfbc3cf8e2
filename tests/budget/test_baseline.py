"""Regressions: worse by more than is allowed, and for times also by more than noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sample_builds

from edgekit.budget import Tolerances, compare_with_baseline, is_broken
from edgekit.budget.baseline import BaselineFindings
from edgekit.records import ArtifactReport, LatencyMs, Manifest, Verdict

NAME = "tflite/int8"


@pytest.fixture
def build() -> Manifest:
    return sample_builds.manifest()


def findings(build: Manifest, changed: ArtifactReport, **tolerances: Any) -> BaselineFindings:
    return compare_with_baseline(sample_builds.with_artifact(build, changed), build, Tolerances(**tolerances))


def broken(found: BaselineFindings) -> list[Verdict]:
    return [verdict for verdict in found.verdicts if is_broken(verdict)]


def timed(report: ArtifactReport, latency: LatencyMs, **changes: Any) -> ArtifactReport:
    return replace(report, profiles=(replace(report.profiles[0], latency_ms=latency, **changes),))


def test_nothing_is_broken_when_a_build_is_its_own_baseline(build: Manifest) -> None:
    found = compare_with_baseline(build, build, Tolerances())
    assert broken(found) == []
    assert {verdict.check for verdict in found.verdicts} == {
        "size_vs_baseline",
        "accuracy_vs_baseline",
        "delegated_vs_baseline",
        "float_islands_vs_baseline",
        "latency_p50_vs_baseline",
        "peak_memory_vs_baseline",
    }
    assert all(verdict.baseline == verdict.value for verdict in found.verdicts)


@pytest.mark.parametrize(
    ("grown_bytes", "tolerances", "expected"),
    [(524, {}, []), (526, {}, ["size_vs_baseline"]), (526, {"size_growth": 0.02}, []), (-9000, {}, [])],
)
def test_size_is_a_regression_when_it_grew_beyond_the_tolerance(
    build: Manifest, grown_bytes: int, tolerances: dict[str, float], expected: list[str]
) -> None:
    report = sample_builds.find(build, NAME)
    assert report.artifact is not None
    grown = replace(report.artifact, size_bytes=report.artifact.size_bytes + grown_bytes)
    assert [v.check for v in broken(findings(build, replace(report, artifact=grown), **tolerances))] == expected


def test_accuracy_is_a_regression_when_it_fell(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    (verdict,) = broken(findings(build, replace(report, parity=sample_builds.parity(33.9, 0.9783 - 0.001, steps=1))))
    assert (verdict.check, verdict.baseline) == ("accuracy_vs_baseline", 0.9833)
    assert verdict.message == "accuracy went from 98.33 % to 97.73 %: −0.60 points"


def test_delegation_and_islands_are_regressions_when_worse(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    assert report.artifact is not None
    assert report.artifact.coverage is not None
    assert report.artifact.audit is not None
    worse = replace(
        report.artifact,
        coverage=replace(report.artifact.coverage, operators=0.79),
        audit=replace(report.artifact.audit, float_islands=("head.norm", "head.gelu")),
    )
    found = findings(build, replace(report, artifact=worse))
    assert [v.check for v in broken(found)] == ["delegated_vs_baseline", "float_islands_vs_baseline"]
    allowed = findings(build, replace(report, artifact=worse), delegated_drop=0.02, new_float_islands=1)
    assert broken(allowed) == []


@pytest.mark.parametrize(("factor", "expected"), [(1.05, "pass"), (1.2, "fail"), (0.5, "pass")])
def test_latency_is_a_regression_when_slower_by_the_factor_and_more_than_noise(
    build: Manifest, factor: float, expected: str
) -> None:
    report = sample_builds.find(build, NAME)
    found = findings(build, timed(report, sample_builds.latency(0.183 * factor, seed=1)))
    (verdict,) = (v for v in found.verdicts if v.artifact == NAME and v.check == "latency_p50_vs_baseline")
    assert verdict.status == expected


def test_latency_is_no_regression_when_the_samples_overlap_too_much(build: Manifest) -> None:
    """The median is 20 % higher, and yet the two sets are shuffled into each other."""
    report = sample_builds.find(build, NAME)
    draw = np.random.default_rng(0)
    noisy = tuple(float(value) for value in draw.uniform(0.1, 0.3, size=12))
    before = timed(report, replace(sample_builds.latency(0.18), samples=noisy))
    after = timed(report, replace(sample_builds.latency(0.22), samples=tuple(value * 1.05 for value in noisy)))
    base = sample_builds.with_artifact(build, before)
    found = compare_with_baseline(sample_builds.with_artifact(build, after), base, Tolerances())
    (verdict,) = (v for v in found.verdicts if v.artifact == NAME and v.check == "latency_p50_vs_baseline")
    assert verdict.status == "pass"
    assert "within noise (Mann–Whitney p = " in verdict.message


@pytest.mark.parametrize("samples", [(), (0.3, 0.3, 0.3)])
def test_factor_decides_alone_when_there_are_too_few_samples_for_a_test(
    build: Manifest, samples: tuple[float, ...]
) -> None:
    report = sample_builds.find(build, NAME)
    few = replace(sample_builds.latency(0.183), samples=samples)
    base = sample_builds.with_artifact(build, timed(report, few))
    slower = sample_builds.with_artifact(build, timed(report, replace(few, median=0.3)))
    found = compare_with_baseline(slower, base, Tolerances())
    (verdict,) = broken(found)
    assert verdict.check == "latency_p50_vs_baseline"
    assert "too few samples" in verdict.message


def test_times_are_not_compared_when_taken_on_another_machine(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    elsewhere = {**sample_builds.MACHINE, "cpu": "Cortex-A76"}
    found = findings(build, timed(report, sample_builds.latency(9.0), machine=elsewhere))
    assert broken(found) == []
    assert not any(v.check.startswith(("latency", "peak")) for v in found.verdicts if v.artifact == NAME)
    assert any("another machine (cpu: AMD EPYC 7B13 64-Core Processor → Cortex-A76)" in note for note in found.notes)


def test_times_are_compared_when_only_the_load_of_the_machine_differs(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    busy = {**sample_builds.MACHINE, "load_average": "3.10 2.00 1.00"}
    found = findings(build, timed(report, sample_builds.latency(9.0), machine=busy))
    assert [v.check for v in broken(found)] == ["latency_p50_vs_baseline"]


def test_times_are_not_compared_when_threads_differ(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    config = replace(report.profiles[0].config, num_threads=2)
    found = findings(build, timed(report, sample_builds.latency(9.0), config=config))
    assert broken(found) == []
    assert any("ran on 1 threads and this on 2" in note for note in found.notes)


def test_lost_figures_are_regressions_when_the_baseline_had_them(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    found = findings(build, replace(report, profiles=(), parity=None))
    lost = {v.check for v in broken(found) if v.status == "not run"}
    assert lost == {"accuracy_vs_baseline", "latency_p50_vs_baseline", "peak_memory_vs_baseline"}


def test_missing_artifact_is_a_regression_and_a_new_one_a_note(build: Manifest) -> None:
    renamed = replace(sample_builds.find(build, NAME), id="tflite/w8")
    others = tuple(report for report in build.artifacts if report.id != NAME)
    found = compare_with_baseline(replace(build, artifacts=(*others, renamed)), build, Tolerances())
    assert [(v.check, v.artifact) for v in broken(found)] == [("artifact_vs_baseline", NAME)]
    assert "tflite/w8 is new: the baseline has none" in found.notes


def test_nothing_is_compared_when_the_baseline_itself_had_failed(build: Manifest) -> None:
    found = compare_with_baseline(build, build, Tolerances())
    assert not any(v.artifact == "tflite/int16x8" for v in found.verdicts)
    assert any("tflite/int16x8 failed in the baseline" in note for note in found.notes)
