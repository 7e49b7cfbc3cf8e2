"""The report: well-formed, alone in the world, complete, and safe whatever a model is called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import sample_builds
from html_page import Page

from edgekit.budget import evaluate_budgets
from edgekit.budget.check import recipe_budgets
from edgekit.records import Manifest, Operator, WeightHistogram
from edgekit.report.html import render_report

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


@pytest.fixture(scope="module")
def build() -> Manifest:
    found = sample_builds.manifest()
    verdicts = evaluate_budgets(recipe_budgets(found), found.artifacts)
    reports = (
        replace(report, verdicts=tuple(verdict for verdict in verdicts if verdict.artifact == report.id))
        for report in found.artifacts
    )
    return replace(found, artifacts=tuple(reports))


@pytest.fixture(scope="module")
def text(build: Manifest) -> str:
    return render_report(build)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_report_is_small_and_the_same_when_rendered_twice(build: Manifest, text: str) -> None:
    assert len(text.encode()) < 300_000
    assert render_report(build) == text


def test_report_loads_nothing_from_elsewhere(page: Page, text: str) -> None:
    assert not {tag for tag, _ in page.tags} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "video",
        "audio",
        "base",
        "form",
    }
    for _, attributes in page.tags:
        assert not {"src", "srcset", "background", "action", "onclick", "onload"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", text)
    policies = [
        a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_report_names_every_artifact_and_links_to_it(build: Manifest, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for report in build.artifacts:
        assert page.words.count(report.id) >= 3, report.id
    targets = {(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"}
    assert targets <= set(page.ids)
    assert {"artifact-0", "summary", "checks", "trade-offs", "layers", "training", "weights", "recipe"} <= targets


def test_report_keeps_not_run_apart_from_passed(page: Page) -> None:
    assert sample_builds.NOT_HERE in page.words
    assert "Not run here, so neither passed nor failed by themselves: coreml/fp16, coreml/int8." in page.words
    assert "5 artifacts of 9 ran here and kept every check." in page.words
    assert "4 of 20 checks broken" in page.words
    assert "○ not run" in page.words


def test_report_shows_failures_with_stage_and_log(page: Page) -> None:
    assert "export:tflite/int16x8" in page.words
    assert "the child process was ended by SIGABRT" in page.words
    assert "logs/export-tflite-int16x8.log" in page.words


def test_report_holds_no_number_that_is_none(text: str) -> None:
    body = text[text.index("<main>") : text.index("<script>")]
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None|undefined)\b", body)


def hostile(build: Manifest) -> Manifest:
    """The same build in which every name comes from someone who means harm."""
    report = build.artifacts[0]
    assert report.artifact is not None
    assert report.parity is not None
    operators = tuple(replace(found, name=HOSTILE, type=HOSTILE, reason=HOSTILE) for found in report.artifact.operators)
    artifact = replace(
        report.artifact,
        operators=operators,
        notes=(HOSTILE,),
        inputs=tuple(replace(tensor, name=HOSTILE) for tensor in report.artifact.inputs),
    )
    output = replace(report.parity.versus_source[0], name=HOSTILE)
    parity = replace(report.parity, versus_source=(output,), reason=HOSTILE, status="fail")
    profile = replace(report.profiles[0], target=HOSTILE, machine={HOSTILE: HOSTILE})
    bad = replace(report, id=HOSTILE, artifact=artifact, parity=parity, profiles=(profile,))
    return replace(
        build,
        name=HOSTILE,
        artifacts=(bad, *build.artifacts[1:]),
        warnings=(HOSTILE,),
        tools={HOSTILE: HOSTILE},
        recipe={HOSTILE: HOSTILE},
        layer_errors=tuple(replace(error, layer=HOSTILE) for error in build.layer_errors),
        weight_histograms=tuple(replace(found, layer=HOSTILE) for found in build.weight_histograms),
        skipped=tuple(replace(layer, reason=HOSTILE) for layer in build.skipped),
    )


def test_report_is_the_same_document_when_names_are_hostile(build: Manifest, page: Page) -> None:
    bad = Page(render_report(hostile(build), compare_with=build))
    good = Page(render_report(replace(hostile(build), name="x"), compare_with=build))
    assert [tag for tag, _ in bad.tags].count("script") == [tag for tag, _ in page.tags].count("script") == 1
    assert [tag for tag, _ in bad.tags] == [tag for tag, _ in good.tags]
    assert not any(name.startswith("on") for _, attributes in bad.tags for name in attributes)
    assert "{{ 7*7 }}" in bad.words


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        (lambda build: replace(build, training=None), "#training"),
        (lambda build: replace(build, layer_errors=()), "#layers"),
        (lambda build: replace(build, weight_histograms=()), "#weights"),
        (lambda build: replace(build, source=None, source_accuracy=None), "source digest"),
        (lambda build: replace(build, artifacts=()), "#trade-offs"),
        (lambda build: replace(build, artifacts=build.artifacts[-1:]), "#trade-offs"),
    ],
)
def test_report_leaves_a_section_out_when_there_is_nothing_to_show(
    build: Manifest, change: Callable[[Manifest], Manifest], absent: str
) -> None:
    text = render_report(change(build))
    Page(text)
    assert absent not in text


def test_report_draws_sqnr_when_there_is_no_accuracy(build: Manifest) -> None:
    without = tuple(
        replace(report, parity=replace(report.parity, accuracy=None, accuracy_drop=None)) if report.parity else report
        for report in build.artifacts
    )
    words = Page(render_report(replace(build, artifacts=without))).words
    assert "SQNR vs source against size" in words
    assert "Accuracy against size" not in words


def test_report_says_what_a_plot_leaves_out(page: Page) -> None:
    assert "3 not in this plot" in page.words
    assert f"coreml/fp16 ({sample_builds.NOT_HERE})" in page.words


def test_report_shows_changes_when_another_build_is_given(build: Manifest) -> None:
    report = build.artifacts[1]
    assert report.artifact is not None
    smaller = replace(report, artifact=replace(report.artifact, size_bytes=report.artifact.size_bytes - 1024))
    text = render_report(sample_builds.with_artifact(build, smaller), compare_with=build)
    words = Page(text).words
    assert '<small class="better">−1.0 KiB (−2.0 %)</small>' in text
    assert "Against digits" in words
    assert "1 better, 0 worse" in words


def test_report_stays_light_when_a_model_is_huge(build: Manifest) -> None:
    report = build.artifacts[0]
    assert report.artifact is not None
    many = tuple(
        Operator(index=index, name=f"model.layers.{index}.attention.projection", type="FULLY_CONNECTED",
                 delegated=True, compute_dtype="int8", macs=index, weight_bytes=index, weight_dtype="int8")
        for index in range(5000)
    )  # fmt: skip
    heavy = tuple(
        replace(found, artifact=replace(found.artifact, operators=many)) if found.artifact else found
        for found in build.artifacts
    )
    layers = tuple(
        WeightHistogram(layer=f"layer {index}", edges=tuple(range(65)), counts=tuple(range(64))) for index in range(900)
    )
    text = render_report(replace(build, artifacts=heavy, weight_histograms=layers))
    assert len(text.encode()) < 1_500_000
    assert "The first 600; manifest.json holds them all." in Page(text).words
    assert "200 of 900 layers are drawn" in Page(text).words
