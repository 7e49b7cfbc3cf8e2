"""Two builds on one page: well-formed, alone in the world, and fair to both."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import sample_builds
from html_page import Page

from edgekit.records import Manifest
from edgekit.report.compare import compare_builds
from edgekit.report.compare_html import headline_columns, render_comparison, tallies

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


@pytest.fixture(scope="module")
def builds() -> tuple[Manifest, Manifest]:
    return sample_builds.twins()


@pytest.fixture(scope="module")
def text(builds: tuple[Manifest, Manifest]) -> str:
    return render_comparison(*builds)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_page_is_small_and_the_same_when_rendered_twice(builds: tuple[Manifest, Manifest], text: str) -> None:
    assert len(text.encode()) < 150_000
    assert render_comparison(*builds) == text


def test_page_loads_nothing_from_elsewhere(page: Page, text: str) -> None:
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "background", "action", "onclick", "onload"} & set(attributes)
    assert not re.search(r"https?://|@import|url\(", text)
    assert any(a.get("name") == "viewport" for tag, a in page.tags if tag == "meta")


def test_page_links_to_its_own_sections(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    targets = {(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"}
    assert targets == {"builds", "ahead", "artifacts", "bars", "training", "figures"}
    assert targets <= set(page.ids)


def test_page_shows_what_people_argue_about(page: Page) -> None:
    for words in (
        "training throughput",
        "p50 latency · host (measured)",
        "delegated operators",
        "SQNR vs source",
        "accuracy",
    ):
        assert words in page.words
    assert "5,334 samples/s 3,200 samples/s −2,134 samples/s (−40.0 %) PyTorch better" in page.words
    assert "PyTorch better in 2, Keras in 2" in page.words
    assert "only in PyTorch" in page.words
    assert "before" not in page.words.lower().replace("before you believe", "")


def test_page_counts_nothing_for_artifacts_that_are_wrong(builds: tuple[Manifest, Manifest], page: Page) -> None:
    comparison = compare_builds(*builds)
    size, p50, accuracy, *_ = tallies(comparison, headline_columns(comparison, ["host"]), *builds)
    assert (size.title, size.first, size.second, size.even, size.unknown) == ("size", 0, 5, 1, 1)
    assert (p50.title, p50.first, p50.second, p50.even, p50.unknown) == ("p50 latency · host (measured)", 2, 3, 0, 2)
    assert (accuracy.first, accuracy.second, accuracy.even, accuracy.unknown) == (0, 0, 5, 2)
    assert "onnx/int8 does not agree with its model in digits-pytorch and digits-keras" in page.words


def test_bars_are_as_long_as_their_figures(text: str) -> None:
    bars = re.findall(r'data-tip="size: [^"]*"><span class="name">tflite/int8</span>.*?</div>', text, re.DOTALL)
    (widths,) = [re.findall(r"width: ([0-9.]+)%", bar) for bar in bars]
    assert widths == [f"{52_480 / 163_840 * 100:.1f}", f"{48_806 / 163_840 * 100:.1f}"]


def test_page_is_the_same_document_when_names_are_hostile(builds: tuple[Manifest, Manifest], page: Page) -> None:
    bad = [
        replace(
            build,
            name=HOSTILE,
            tools={HOSTILE: build.name},
            artifacts=(replace(build.artifacts[0], id=HOSTILE), *build.artifacts[1:]),
        )
        for build in builds
    ]
    found = Page(render_comparison(bad[0], bad[1]))
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in found.tags}
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert "{{ 7*7 }}" in found.words


@pytest.mark.parametrize("present", [0, 1])
def test_page_stands_when_a_build_has_nothing_to_show(builds: tuple[Manifest, Manifest], present: int) -> None:
    bare = [replace(build, source=None, source_accuracy=None, training=None, artifacts=()) for build in builds]
    pair = [builds[0] if index == present else bare[index] for index in (0, 1)]
    words = Page(render_comparison(pair[0], pair[1])).words
    assert "not built" in words
    assert "only in digits-" in words
    assert "None" not in words
    Page(render_comparison(bare[0], bare[1]))
