"""Reports of emulated profiles: labelled, with band and basis, and never in one comparison with a clock's figure."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sample_builds
import sample_emulated
from html_page import Page

from edgekit.records import Manifest, from_json, to_json
from edgekit.report.compare import ComparedFigure, compare_builds
from edgekit.report.compare_html import render_comparison
from edgekit.report.html import render_report

NAME = "tflite/int8"


@pytest.fixture
def build() -> Manifest:
    return sample_emulated.manifest()


def figure(before: Manifest, after: Manifest, name: str, target: str) -> ComparedFigure:
    (artifact,) = (one for one in compare_builds(before, after).artifacts if one.id == NAME)
    return next(one for one in artifact.figures if (one.name, one.target) == (name, target))


def on_pixel(build: Manifest, profile: object) -> Manifest:
    report = sample_builds.find(build, NAME)
    return sample_builds.with_artifact(build, replace(report, profiles=(report.profiles[0], profile)))  # type: ignore[arg-type]


def test_manifest_with_both_kinds_survives_json(build: Manifest) -> None:
    assert from_json(Manifest, to_json(build)) == build


def test_report_labels_both_kinds_and_shows_band_and_basis(build: Manifest) -> None:
    page = Page(render_report(build))
    for words in (
        "p50 · host (measured)",
        "p50 · pixel-4 (emulated)",
        "instructions · pixel-4 (emulated)",
        "400 us (320 to 533)",
        "1,200,000",
        f"Band of pixel-4 (emulated): {sample_emulated.BASIS}",
        "xnn_f32_igemm_minmax_ukernel_6x8__asm_aarch64_neonfma",
        "features.conv1",
        "against this machine",
        "This build holds measured and emulated ones.",
        "one inference counted after 1 to warm up, time from the static model",
    ):
        assert words in page.words
    assert "p95 · pixel-4" not in page.words  # an estimate has no percentiles


def test_report_draws_instructions_where_there_is_no_time(build: Manifest) -> None:
    counted = replace(
        build,
        artifacts=tuple(
            replace(report, profiles=(sample_emulated.profile(report.id, median_ms=None),))
            if report.profiles
            else report
            for report in build.artifacts
        ),
    )
    page = Page(render_report(counted))
    assert "Accuracy against instructions on pixel-4 (emulated)" in page.words
    assert "p50 · pixel-4" not in page.words
    assert "no time" in page.words


def test_report_shows_every_failed_target(build: Manifest) -> None:
    report = sample_builds.find(build, NAME)
    failure = build.artifacts[-1].error
    assert failure is not None
    second = replace(failure, stage="profile:tflite/int8@pixel-4", message="the guest was ended by SIGSEGV")
    failed = replace(report, error=failure, other_errors=(second,))
    assert "the guest was ended by SIGSEGV" in Page(render_report(sample_builds.with_artifact(build, failed))).words


def test_comparison_refuses_a_difference_between_a_clock_and_a_model(build: Manifest) -> None:
    measured = replace(sample_builds.profile(NAME, 0.2, 90_000), target="pixel-4")
    found = figure(build, on_pixel(build, measured), "latency_p50", "pixel-4")
    assert (found.standing, found.change) == ("not comparable", "")
    assert found.place == "pixel-4 (emulated / measured)"
    assert found.texts == ("400 us (320 to 533), emulated", "200 us, measured")
    (memory,) = [figure(build, on_pixel(build, measured), "peak_memory", "pixel-4")]
    assert (memory.standing, memory.change) == ("not comparable", "")


def test_comparison_page_draws_no_bars_of_two_kinds_side_by_side(build: Manifest) -> None:
    measured = replace(sample_builds.profile(NAME, 0.2, 90_000), target="pixel-4")
    text = render_comparison(build, on_pixel(build, measured))
    (bar,) = re.findall(r'data-tip="p50 latency: not comparable".*?</div>', text, flags=re.DOTALL)[-1:]
    assert "width: 0.0%" in bar
    assert not re.search(r"width: [1-9]", bar)


def test_comparison_of_estimates_is_exact_and_names_the_operators(build: Manifest) -> None:
    after = sample_emulated.manifest(instructions=1_500_000)
    assert figure(build, after, "instructions", "pixel-4").change == "+300,000 (+25.0 %)"
    assert figure(build, after, "latency_p50", "pixel-4").standing == "same"
    assert any("outside of operators: 100,000 → 400,000" in note for note in compare_builds(build, after).notes)


def test_comparison_of_estimates_is_refused_when_the_model_changed(build: Manifest) -> None:
    other = replace(sample_emulated.profile(NAME, median_ms=0.2), model="trace")
    after = on_pixel(build, other)
    assert figure(build, after, "latency_p50", "pixel-4").standing == "not comparable"
    assert figure(build, after, "instructions", "pixel-4").standing == "same"
    assert any("the latency is not comparable" in note for note in compare_builds(build, after).notes)
