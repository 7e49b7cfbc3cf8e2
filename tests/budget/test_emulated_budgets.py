"""Budgets and baselines on emulated figures: exact counts, estimates with a band, and never a clock against a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sample_builds
import sample_emulated

from edgekit.budget import Tolerances, check, compare_with_baseline, is_broken, junit_xml, markdown_summary
from edgekit.budget.baseline import BaselineFindings
from edgekit.budget.figures import format_with_band
from edgekit.budget.limits import evaluate_budgets
from edgekit.budget.operator_changes import operator_changes
from edgekit.recipe.schema import Budget
from edgekit.records import ArtifactReport, EmulatedProfile, Manifest, Verdict

NAME = "tflite/int8"


@pytest.fixture
def build() -> Manifest:
    return sample_emulated.manifest()


def verdict(build: Manifest, **limits: Any) -> Verdict:
    (found,) = evaluate_budgets([Budget.model_validate({"artifact": NAME, **limits})], build.artifacts)
    return found


def with_profile(build: Manifest, profile: EmulatedProfile) -> Manifest:
    report = sample_builds.find(build, NAME)
    return sample_builds.with_artifact(build, replace(report, profiles=(report.profiles[0], profile)))


def against(build: Manifest, profile: EmulatedProfile, **tolerances: Any) -> BaselineFindings:
    return compare_with_baseline(with_profile(build, profile), build, Tolerances(**tolerances))


def emulated(report: ArtifactReport) -> EmulatedProfile:
    (found,) = (profile for profile in report.profiles if isinstance(profile, EmulatedProfile))
    return found


@pytest.mark.parametrize(("limit", "status"), [(1_200_000, "pass"), ("1.2 M", "pass"), (1_199_999, "fail")])
def test_instructions_are_held_to_the_very_number(build: Manifest, limit: object, status: str) -> None:
    found = verdict(build, instructions={"pixel-4": limit})
    assert (found.status, found.kind, found.value) == (status, "emulated", 1_200_000)
    assert "instructions on pixel-4 (emulated) is 1,200,000" in found.message


def test_latency_budget_is_answered_by_the_estimate_and_carries_its_band(build: Manifest) -> None:
    found = verdict(build, latency_p50={"pixel-4": "2 ms"})
    assert (found.status, found.kind) == ("pass", "emulated")
    assert found.band == pytest.approx((0.32, 0.4 / 0.75))
    assert "400 us (320 to 533)" in found.message
    assert sample_emulated.BASIS in found.message
    assert "either side" not in found.message


def test_latency_budget_says_so_when_its_limit_lies_inside_the_band(build: Manifest) -> None:
    found = verdict(build, latency_p50={"pixel-4": "0.45 ms"})
    assert found.status == "pass"
    assert "the device itself may be on either side of it" in found.message


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"latency_p95": {"pixel-4": "2 ms"}}, "it has no percentiles"),
        ({"instructions": {"host": 5}}, "timed by a clock, which counts no instructions"),
        ({"instructions": {"pixel-5": 5}}, "not profiled on pixel-5"),
    ],
)
def test_figure_is_missing_with_its_reason_when_the_kind_of_target_does_not_give_it(
    build: Manifest, limits: dict[str, object], reason: str
) -> None:
    found = verdict(build, **limits)
    assert found.status == "not run"
    assert reason in found.message
    assert is_broken(found)


def test_latency_is_missing_when_only_counts_were_taken(build: Manifest) -> None:
    counted = with_profile(build, sample_emulated.profile(NAME, median_ms=None))
    assert "the model 'counts' gives no time" in verdict(counted, latency_p50={"pixel-4": "2 ms"}).message
    assert verdict(counted, instructions={"pixel-4": "2 M"}).status == "pass"


@pytest.mark.parametrize(
    ("instructions", "tolerances", "expected"),
    [
        (1_200_000, {}, []),
        (1_200_001, {}, ["instructions_vs_baseline"]),
        (1_200_001, {"instructions_growth": 0.01}, []),
        (1_100_000, {}, []),
    ],
)
def test_one_instruction_more_is_a_regression_unless_it_is_allowed(
    build: Manifest, instructions: int, tolerances: dict[str, float], expected: list[str]
) -> None:
    found = against(build, sample_emulated.profile(NAME, instructions=instructions), **tolerances)
    assert [v.check for v in found.verdicts if is_broken(v)] == expected


def test_regression_names_the_operators_and_their_kernels(build: Manifest) -> None:
    before = sample_emulated.profile(NAME)
    slower = sample_emulated.operator("conv2", 900_000, 1_700_000, "xnn_f32_gemm_minmax_ukernel_4x8__scalar")
    after = replace(before, instructions=1_700_000, operators=(before.operators[0], slower))
    (found,) = (v for v in against(build, after).verdicts if is_broken(v))
    assert found.details == (
        "conv2 (Convolution (NHWC, F32) IGEMM): 400,000 → 900,000 instructions, +500,000 (+125.0 %), "
        "xnn_f32_gemm_minmax_ukernel_6x8__asm_aarch64_neonfma → xnn_f32_gemm_minmax_ukernel_4x8__scalar",
    )
    assert found.details[0] in found.message
    report = check(with_profile(build, after), budgets=[], baseline=build)
    assert "4x8__scalar" in junit_xml(report)
    assert "4x8\\_\\_scalar" in markdown_summary(report)
    assert "pixel-4 (emulated)" in markdown_summary(report)


def test_operators_that_came_or_went_are_named() -> None:
    before = sample_emulated.profile(NAME)
    gone = replace(before, operators=before.operators[:1])
    (change,) = operator_changes(before, gone)
    assert (change.name, change.before, change.after, change.growth) == ("conv2", 400_000, None, -400_000)
    assert str(change).startswith("conv2 (Convolution (NHWC, F32) IGEMM): 400,000 → none instructions, xnn_f32_gemm")
    assert operator_changes(before, before) == ()


def test_operators_of_one_name_are_matched_in_their_order() -> None:
    one = sample_emulated.operator("conv", 10, 30, "a")
    two = sample_emulated.operator("conv", 20, 30, "b")
    before = replace(sample_emulated.profile(NAME), operators=(one, two))
    after = replace(before, operators=(one, replace(two, instructions=25)))
    (change,) = operator_changes(before, after)
    assert (change.before, change.after) == (20, 25)


@pytest.mark.parametrize(("growth", "expected"), [(1.005, []), (1.02, ["latency_p50_vs_baseline"])])
def test_estimate_has_no_noise_so_a_small_growth_is_a_regression(
    build: Manifest, growth: float, expected: list[str]
) -> None:
    slower = sample_emulated.profile(NAME, median_ms=0.4 * growth)
    assert [v.check for v in against(build, slower).verdicts if is_broken(v)] == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": {**sample_emulated.MACHINE, "core_table": "0" * 12}}, "other figures of the device (core_table:"),
        ({"model": "trace"}, "estimated by the model 'static' and this by 'trace'"),
        ({"latency_ms": sample_emulated.estimate(9.0, anchors=("v1 = 88 ms",))}, "other measurements of the device"),
    ],
)
def test_only_counts_are_compared_when_the_model_changed(build: Manifest, changes: dict[str, Any], words: str) -> None:
    found = against(build, replace(sample_emulated.profile(NAME, median_ms=9.0), **changes))
    assert not any(is_broken(v) for v in found.verdicts)
    assert any(words in note and "its counts are compared" in note for note in found.notes)
    assert any(v.check == "instructions_vs_baseline" and v.target == "pixel-4" for v in found.verdicts)


def test_nothing_is_compared_between_a_clock_and_a_model(build: Manifest) -> None:
    measured = replace(sample_builds.profile(NAME, 9.0, 90_000), target="pixel-4")
    report = sample_builds.find(build, NAME)
    now = sample_builds.with_artifact(build, replace(report, profiles=(report.profiles[0], measured)))
    found = compare_with_baseline(now, build, Tolerances())
    assert not any(v.target == "pixel-4" and v.artifact == NAME for v in found.verdicts)
    assert any("which is emulated and this measured: two kinds of number that never mix" in n for n in found.notes)


def test_band_is_printed_with_the_unit_once() -> None:
    assert format_with_band(0.4, "ms", (0.32, 0.5333)) == "400 us (320 to 533)"
    assert format_with_band(0.9, "ms", (0.5, 1.5)) == "900 us (500 us to 1.5 ms)"
    assert format_with_band(0.9, "ms", (0.5, None)) == "900 us (from 500)"
    assert format_with_band(None, "ms", None) == "–"
