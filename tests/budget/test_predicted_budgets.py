"""Budgets, baselines and reports of predicted figures: labelled, with their band, never against a clock's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sample_builds
import sample_predicted
from html_page import Page

from edgekit.budget import Tolerances, check, compare_with_baseline, markdown_summary
from edgekit.budget.limits import evaluate_budgets
from edgekit.recipe.schema import Budget
from edgekit.records import Manifest, PredictedProfile, Verdict, from_json, to_json
from edgekit.report.compare import compare_builds
from edgekit.report.html import render_report

NAME = "tflite/int8"
ON = sample_predicted.TARGET


@pytest.fixture
def build() -> Manifest:
    return sample_predicted.manifest()


def verdict(build: Manifest, **limits: Any) -> Verdict:
    (found,) = evaluate_budgets([Budget.model_validate({"artifact": NAME, **limits})], build.artifacts)
    return found


def with_profile(build: Manifest, profile: PredictedProfile) -> Manifest:
    report = sample_builds.find(build, NAME)
    return sample_builds.with_artifact(build, replace(report, profiles=(report.profiles[0], profile)))


def test_manifest_with_predictions_survives_json(build: Manifest) -> None:
    assert from_json(Manifest, to_json(build)) == build


def test_latency_budget_is_answered_by_the_prediction_and_carries_its_band(build: Manifest) -> None:
    found = verdict(build, latency_p50={ON: "2 ms"})
    assert (found.status, found.kind, found.value) == ("pass", "predicted", 0.4)
    assert found.band == pytest.approx((0.2, 0.5))
    assert sample_predicted.BASIS in found.message
    assert f"{ON} (predicted)" in found.message


def test_latency_budget_is_broken_when_the_prediction_is_above_it(build: Manifest) -> None:
    assert verdict(build, latency_p50={ON: "0.3 ms"}).status == "fail"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"latency_p95": {ON: "2 ms"}}, "a predicted latency is one estimate"),
        ({"peak_memory": {ON: "2 MiB"}}, "memory is not predicted"),
        ({"instructions": {ON: 5}}, "it was predicted, which counts no instructions"),
    ],
)
def test_figure_is_missing_with_its_reason(build: Manifest, limits: dict[str, object], reason: str) -> None:
    found = verdict(build, **limits)
    assert found.status == "not run"
    assert reason in found.message


@pytest.mark.parametrize(("median_ms", "status"), [(0.4, "pass"), (0.41, "fail"), (0.3, "pass")])
def test_prediction_is_held_to_the_baseline_without_noise(build: Manifest, median_ms: float, status: str) -> None:
    now = with_profile(build, sample_predicted.profile(NAME, median_ms))
    findings = compare_with_baseline(now, build, Tolerances())
    (found,) = (one for one in findings.verdicts if one.artifact == NAME and one.target == ON)
    assert (found.check, found.status, found.kind) == ("latency_p50_vs_baseline", status, "predicted")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"machine": {"chip": "Apple M1", "figures": "other"}}, "other figures of the chip"),
        ({"compute_units": "cpuOnly"}, "for the units all and this for cpuOnly"),
    ],
)
def test_predictions_are_not_compared_when_they_rest_on_other_things(
    build: Manifest, changes: dict[str, Any], reason: str
) -> None:
    now = with_profile(build, replace(sample_predicted.profile(NAME, 4.0), **changes))
    findings = compare_with_baseline(now, build, Tolerances())
    assert not [one for one in findings.verdicts if one.artifact == NAME and one.target == ON]
    assert reason in " ".join(findings.notes)
    (artifact,) = (one for one in compare_builds(build, now).artifacts if one.id == NAME)
    (figure,) = (one for one in artifact.figures if (one.name, one.target) == ("latency_p50", ON))
    assert figure.standing == "not comparable"


def test_prediction_is_never_compared_with_a_measurement(build: Manifest) -> None:
    measured = replace(sample_builds.find(build, NAME).profiles[0], target=ON)
    report = sample_builds.find(build, NAME)
    now = sample_builds.with_artifact(build, replace(report, profiles=(report.profiles[0], measured)))
    findings = compare_with_baseline(now, build, Tolerances())
    assert "two kinds of number that never mix" in " ".join(findings.notes)
    (artifact,) = (one for one in compare_builds(build, now).artifacts if one.id == NAME)
    (figure,) = (one for one in artifact.figures if (one.name, one.target) == ("latency_p50", ON))
    assert (figure.standing, figure.change) == ("not comparable", "")
    assert figure.texts[0].endswith(", predicted")


def test_markdown_labels_the_prediction(build: Manifest) -> None:
    budgets = [Budget.model_validate({"artifact": NAME, "latency_p50": {ON: "0.3 ms"}})]
    assert f"{ON} (predicted)" in markdown_summary(check(build, budgets=budgets))


def test_report_labels_predictions_and_shows_band_basis_and_units(build: Manifest) -> None:
    page = Page(render_report(build))
    for words in (
        f"p50 · {ON} (predicted)",
        "400 us (200 to 500)",
        f"Band of {ON} (predicted): {sample_predicted.BASIS}",
        "This build holds measured and predicted ones.",
        "a roofline of Apple M1, units all",
        "neural engine",
        "nothing ran",
    ):
        assert words in page.words
