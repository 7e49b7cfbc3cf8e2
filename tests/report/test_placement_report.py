"""Placements as text: the table, the page of a build, a budget on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sample_builds
from html_page import Page
from rich.console import Console

from edgekit.budget.limits import evaluate_budgets
from edgekit.recipe.schema import Budget
from edgekit.records import Manifest, OperationPlacement, Placement
from edgekit.report.html import render_report
from edgekit.report.placement import agreement_text, handover_text, placement_rows, placement_sources
from edgekit.report.tables import placement_table

HOSTILE = "</script><b>[red]{{ 7*7 }}"
GATHER = OperationPlacement(
    index=0,
    name="embedding",
    type="gather",
    units=("cpu", "gpu"),
    preferred="cpu",
    segment=0,
    compute_dtype="float16",
    macs=0,
    weight_bytes=4096,
    activation_bytes=512,
    reasons={"neural_engine": "Core ML leaves gathering by index to the CPU"},
    sources=("https://example.org/plan", "estimate: seen twice"),
    cost=0.2,
)
LINEAR = replace(
    GATHER,
    index=1,
    name="dense",
    type="linear",
    units=("cpu", "gpu", "neural_engine"),
    preferred="neural_engine",
    segment=1,
    macs=9_000,
    reasons={},
    sources=(),
)
TAIL = replace(GATHER, index=2, name=HOSTILE, type="topk", macs=1_000, segment=2, sources=("https://example.org/plan",))
PREDICTED = Placement(
    kind="predicted",
    compute_units="all",
    chip="m2",
    operations=(GATHER, LINEAR, TAIL),
    segments=3,
    transfers=2,
    transfer_bytes=2048,
    shares={"cpu": 0.1, "gpu": 0.0, "neural_engine": 0.9},
    takes={"cpu": 1.0, "gpu": 1.0, "neural_engine": 0.9},
    notes=("an upper bound",),
)
MEASURED = replace(
    PREDICTED,
    kind="measured",
    operations=(GATHER, replace(LINEAR, preferred="cpu")),
    segments=1,
    notes=(),
)


def text_of(placement: Placement, answered: Placement | None = None, width: int = 200) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.capture() as capture:
        console.print(placement_table(placement, answered))
    console.file.close()
    return capture.get()


@pytest.fixture
def build() -> Manifest:
    found = sample_builds.manifest()
    report = sample_builds.find(found, "coreml/fp16") if any(r.id == "coreml/fp16" for r in found.artifacts) else None
    chosen = report or found.artifacts[0]
    assert chosen.artifact is not None
    placed = replace(chosen, artifact=replace(chosen.artifact, placement=PREDICTED))
    return sample_builds.with_artifact(found, placed)


def test_table_says_where_each_runs_why_not_elsewhere_and_from_where() -> None:
    found = text_of(PREDICTED)
    assert "Core ML leaves gathering by index to the CPU [1, 2]" in found
    assert "[1] https://example.org/plan" in found
    assert "[2] estimate: seen twice" in found
    assert "predicted by published rules, m2, units all" in found
    assert "Neural Engine 90.00 %, could take 90.00 %" in found
    assert "3 segments, which hand 2 values (2.0 KiB) to each other" in found
    assert "note: an upper bound" in found
    assert HOSTILE in found


def test_answer_of_core_ml_stands_beside_and_differences_are_counted() -> None:
    rows = placement_rows(PREDICTED, MEASURED)
    assert [(row.answered, row.differs) for row in rows] == [("CPU", False), ("CPU", True), ("", False)]
    found = text_of(PREDICTED, MEASURED)
    assert "Core ML says" in found
    assert "agrees with the prediction on 1 of 2 operations" in found
    assert agreement_text(PREDICTED, MEASURED) in found
    assert "measured: Core ML's own plan on the device" in found


def test_column_of_core_ml_is_missing_where_it_was_not_asked() -> None:
    assert "Core ML says" not in text_of(PREDICTED)


@pytest.mark.parametrize(
    ("segments", "transfers", "size", "words"),
    [
        (1, 0, 0, "one segment: nothing changes hands"),
        (0, 0, 0, "one segment: nothing changes hands"),
        (2, 1, 0, "2 segments, which hand 1 value to each other"),
    ],
)
def test_handing_over_in_words(segments: int, transfers: int, size: int, words: str) -> None:
    assert handover_text(replace(PREDICTED, segments=segments, transfers=transfers, transfer_bytes=size)) == words


def test_sources_are_listed_once_in_order() -> None:
    assert placement_sources(PREDICTED) == ("https://example.org/plan", "estimate: seen twice")


def test_page_shows_the_placement_and_escapes_names(build: Manifest) -> None:
    text = render_report(build)
    words = Page(text).words
    assert "Where it runs predicted" in words
    assert "2 of 3 operations that a unit cannot take" in words
    assert "Core ML leaves gathering by index to the CPU [1, 2]" in words
    assert "https://example.org/plan" in words
    assert "<b>[red]" not in text


@pytest.mark.parametrize(("limit", "status"), [(0.9, "pass"), (0.95, "fail")])
def test_budget_on_the_neural_engine_is_a_predicted_figure(build: Manifest, limit: float, status: str) -> None:
    name = next(report.id for report in build.artifacts if report.artifact and report.artifact.placement)
    budget = Budget.model_validate({"artifact": name, "neural_engine": limit})
    (found,) = evaluate_budgets([budget], build.artifacts)
    assert (found.status, found.kind, found.value) == (status, "predicted", 0.9)


def test_budget_on_the_neural_engine_is_not_kept_by_other_formats(build: Manifest) -> None:
    budget = Budget.model_validate({"artifact": "tflite/fp32", "neural_engine": 0.5})
    (found,) = evaluate_budgets([budget], sample_builds.manifest().artifacts)
    assert found.status == "not run"
    assert "only Core ML artifacts are placed" in found.message
