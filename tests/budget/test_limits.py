"""Budgets: which artifacts they mean, when they can be judged, and on which side of a limit a value lies."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sample_builds
from hypothesis import given
from hypothesis import strategies as st

from edgekit.budget import check_budgets_can_be_judged, evaluate_budgets, is_broken, match_artifacts
from edgekit.budget.figures import format_change, format_figure
from edgekit.budget.limits import keeps
from edgekit.errors import RecipeError
from edgekit.recipe.schema import Budget
from edgekit.records import ArtifactReport, Verdict

IDS = ["tflite/fp32", "tflite/int8", "executorch/int8", "executorch/int8@coreml", "coreml/int8"]


def budget(**limits: object) -> Budget:
    return Budget.model_validate({"artifact": "tflite/int8", **limits})


def verdict_on(report: ArtifactReport, **limits: object) -> Verdict:
    (found,) = evaluate_budgets([budget(artifact=report.id, **limits)], [report])
    return found


@pytest.fixture
def int8() -> ArtifactReport:
    return sample_builds.find(sample_builds.manifest(), "tflite/int8")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("tflite/int8", ["tflite/int8"]),
        ("*/int8", ["tflite/int8", "executorch/int8", "coreml/int8"]),
        ("executorch/*", ["executorch/int8", "executorch/int8@coreml"]),
        ("*", IDS),
    ],
)
def test_pattern_picks_artifacts_when_it_matches(pattern: str, expected: list[str]) -> None:
    assert list(match_artifacts(pattern, IDS)) == expected


def test_pattern_is_refused_with_the_nearest_id_when_it_matches_nothing() -> None:
    with pytest.raises(RecipeError, match=r"budgets\.2\.artifact: .*'tflite/int' matches no artifact.*'tflite/int8'"):
        match_artifacts("tflite/int", IDS, "budgets.2.artifact")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"artifact": "onnx/*", "size": "1 MiB"}, "matches no artifact"),
        ({"latency_p50": {"pixel-4": "2 ms"}}, "nothing is profiled on 'pixel-4'"),
        ({"peak_memory": {"hots": "2 MiB"}}, "Did you mean 'host'"),
        ({}, "expected at least one limit"),
    ],
)
def test_budget_is_refused_before_work_when_it_can_never_be_kept(limits: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_budgets_can_be_judged([budget(**limits)], IDS, ["host"])


def test_budgets_are_accepted_when_everything_in_them_is_measured() -> None:
    limits = budget(size="1 MiB", latency_p95={"host": "2 ms"}, peak_memory={"host": "9 MiB"}, accuracy=0.9)
    check_budgets_can_be_judged([limits], IDS, ["host"])


@pytest.mark.parametrize(
    ("limits", "status", "words"),
    [
        ({"size": "52480 B"}, "pass", "within the limit"),
        ({"size": "52479 B"}, "fail", r"51\.2 KiB, which breaks .*\+1 B"),
        ({"latency_p50": {"host": "0.183 ms"}}, "pass", "183 us"),
        (
            {"latency_p50": {"host": "0.18 ms"}},
            "fail",
            r"p50 latency on host \(measured\) is 183 us.*\+3 us \(\+1\.7 %\)",
        ),
        ({"latency_p95": {"host": "1 us"}}, "fail", "p95 latency on host"),
        ({"peak_memory": {"host": "1 MiB"}}, "pass", "307.5 KiB"),
        ({"accuracy": 0.9833}, "pass", "98.33 %"),
        ({"accuracy": 0.99}, "fail", r"−0\.67 points"),
        ({"accuracy_drop": 0.001}, "fail", r"\+0\.18 points"),
        ({"sqnr_db": 33.9}, "pass", "33.9 dB"),
        ({"max_steps": 0}, "fail", r"1 step, .*at most 0 steps"),
        ({"delegated": 0.9}, "fail", r"80\.00 %.*at least 90\.00 %: −10\.00 points"),
    ],
)
def test_limit_is_judged_when_the_figure_is_known(
    int8: ArtifactReport, limits: dict[str, object], status: str, words: str
) -> None:
    found = verdict_on(int8, **limits)
    assert found.status == status
    assert is_broken(found) == (status == "fail")
    assert re.search(words, found.message)


@pytest.mark.parametrize(
    ("name", "limits", "reason"),
    [
        ("coreml/int8", {"sqnr_db": 20}, "runs on Apple devices only"),
        ("coreml/int8", {"accuracy": 0.5}, "runs on Apple devices only"),
        ("coreml/int8", {"latency_p50": {"host": "1 s"}}, "not profiled on host"),
        ("tflite/int16x8", {"size": "1 GiB"}, "it was not built"),
        ("tflite/fp32", {"max_steps": 1}, "not quantized"),
    ],
)
def test_limit_is_broken_when_the_figure_was_not_measured(name: str, limits: dict[str, object], reason: str) -> None:
    found = verdict_on(sample_builds.find(sample_builds.manifest(), name), **limits)
    assert (found.status, found.value) == ("not run", None)
    assert is_broken(found)
    assert reason in found.message


def test_slowest_profile_counts_when_a_target_was_profiled_twice(int8: ArtifactReport) -> None:
    slow = sample_builds.profile("tflite/int8", 0.9, 1000)
    found = verdict_on(replace(int8, profiles=(slow, *int8.profiles)), latency_p50={"host": "0.5 ms"})
    assert found.value == 0.9


def test_drop_keeps_its_limit_when_only_rounding_is_above_it() -> None:
    assert 0.98 - 0.97 > 0.01
    assert keeps(0.98 - 0.97, 0.01, "max")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_every_value_keeps_one_of_two_opposite_limits(value: float, limit: float) -> None:
    assert keeps(value, limit, "max") or keeps(value, limit, "min")
    assert keeps(value, value, "max")
    assert keeps(value, value, "min")


def test_nan_keeps_no_limit() -> None:
    assert not keeps(float("nan"), 1.0, "max")
    assert not keeps(float("nan"), 1.0, "min")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (float("nan"), "dB", "not finite"),
        (300.0, "dB", "identical"),
        (33.94, "dB", "33.9 dB"),
        (1.0, "steps", "1 step"),
        (0.5, "steps", "0.5 steps"),
        (5210.4, "samples/s", "5,210 samples/s"),
        (1.5 * 1024**2, "bytes", "1.5 MiB"),
        (999.997, "ms", "1 s"),
        (0.99999, "ms", "1 ms"),
    ],
)
def test_figure_is_printed_with_its_unit(value: float | None, unit: str, text: str) -> None:
    assert format_figure(value, unit) == text


def test_change_is_relative_only_when_there_is_something_to_relate_to() -> None:
    assert format_change(512.0, 1024.0, "bytes") == "+512 B (+50.0 %)"
    assert format_change(512.0, 0.0, "bytes") == "+512 B"
    assert format_change(0.0, 5.0, "ms") == "±0"
