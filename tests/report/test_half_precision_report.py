"""What float16 does to an artifact, in the table and on the page."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import sample_builds
from html_page import Page
from rich.console import Console
from sample_half_precision import overflowing

from edgekit.records import HalfPrecision, OperationLoss
from edgekit.report.half_precision import half_precision_lines
from edgekit.report.html import render_report
from edgekit.report.tables import half_precision_table

HOSTILE = "[red]</script><img src=x onerror=alert(2)>"
OVERFLOW = overflowing(HOSTILE)
LOSS = OperationLoss(
    name="sub",
    type="sub",
    sqnr_db=40.04,
    own_sqnr_db=51.26,
    max_abs=3.25,
    overflows=False,
    starts_overflow=False,
)
BROKEN = HalfPrecision(
    compute="declared",
    samples=6,
    outputs={"logits": None, "boxes": 61.5},
    first_overflow="mul_1",
    worst=(OVERFLOW, LOSS),
    keep_in_float32=("mul_1", "div"),
    kept_in_float32=("head",),
)


def test_table_tells_operations_outputs_and_what_to_keep() -> None:
    console = Console(file=StringIO(), width=160)
    console.print(half_precision_table(BROKEN))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "overflows" in rows["mul_1"]
    assert "infinity or NaN" in rows["mul_1"]
    assert HOSTILE in rows["mul_1"]
    assert "51.3 dB" in rows["sub"]
    assert "40.0 dB" in rows["sub"]
    assert "output logits: infinity or NaN" in text
    assert "output boxes: 61.5 dB" in text
    assert "keep_float32: [mul_1, div]" in text


def test_nothing_is_proposed_when_nothing_need_be_kept() -> None:
    whole = replace(BROKEN, outputs={"logits": 60.0}, first_overflow=None, keep_in_float32=(), kept_in_float32=())
    assert half_precision_lines(whole) == (
        "Against itself in float32, on 6 samples, rounded to float16 where the file declares it:",
        "output logits: 60.0 dB",
    )


def test_page_shows_it_and_takes_no_name_for_markup() -> None:
    build = sample_builds.manifest()
    report = sample_builds.find(build, "coreml/fp16")
    assert report.artifact is not None
    changed = replace(report, artifact=replace(report.artifact, half_precision=BROKEN))
    text = render_report(sample_builds.with_artifact(build, changed))
    page = Page(text)
    assert "What float16 does" in text
    assert "keep_float32: [mul_1, div]" in text
    assert "<img" not in text
    assert not any("onerror" in attributes for _, attributes in page.tags)
