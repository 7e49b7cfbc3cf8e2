"""Tables of a whole build: its artifacts, its checks, its plan, and two builds side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.budget.figures import FIGURES, format_figure, format_with_band, place_text
from edgekit.budget.limits import is_broken
from edgekit.budget.markdown import limit_text, margin, value_text
from edgekit.records import ArtifactReport, Manifest, Parity, Verdict
from edgekit.report import overview
from edgekit.report.compare import ComparedFigure, Comparison
from edgekit.report.overview import TimeColumn, headline_times, standing_of
from edgekit.report.tables.cells import STYLES, frame, row, standing


class PlannedArtifact(Protocol):
    """What a plan says of an artifact."""

    @property
    def id(self) -> str:
        """``tflite/int8``."""

    @property
    def program(self) -> str:
        """Precision of the program that it is lowered from."""

    @property
    def dynamic_batch(self) -> bool:
        """Whether it takes any batch size."""

    @property
    def not_here(self) -> str | None:
        """Why this machine cannot run it; None: it can."""


class ArtifactParity(Protocol):
    """The comparison of one artifact."""

    @property
    def artifact(self) -> str:
        """``tflite/int8``."""

    @property
    def parity(self) -> Parity:
        """What came out."""


def summary_table(manifest: Manifest) -> RenderableType:
    """One row an artifact: status, size, accuracy, distance, delegated share, and what each target says.

    Measured targets have their p50 and p95, emulated ones an estimate with its band and the exact instructions,
    predicted ones an estimate alone.
    """
    columns = headline_times(manifest.artifacts)
    times = [f"{title} {place}" for title, place in (column.heading for column in columns)]
    numbers = ["size", "accuracy", "drop", "SQNR", "steps", "delegated", *times]
    table = frame(["artifact", "status", *numbers], numbers, whole=("artifact", "status"))
    for report in manifest.artifacts:
        row(table, report.id, standing(standing_of(report)), *_figures(report, columns))
    bases = overview.bands_told(manifest.artifacts)
    return _with_lines(table, [f"band of {place}: {basis}" for place, basis in bases])


def _figures(report: ArtifactReport, columns: Sequence[TimeColumn]) -> Iterable[str]:
    for name in ("size", "accuracy", "accuracy_drop", "sqnr_db", "max_steps", "delegated"):
        yield _text(report, name, None)
    for column in columns:
        yield _text(report, column.figure, column.target)


def _text(report: ArtifactReport, name: str, target: str | None) -> str:
    figure = FIGURES[name].read(report, target)
    return format_with_band(figure.value, FIGURES[name].unit, figure.band)


def verdict_table(verdicts: Iterable[Verdict]) -> RenderableType:
    """One row a check, broken ones first: value, limit, by how much. Reasons of what was not run stand below.

    Figures that are exactly as in the baseline are counted, not listed.
    """
    ordered = sorted(verdicts, key=lambda verdict: not is_broken(verdict))
    unchanged = sum(_as_in_baseline(verdict) for verdict in ordered)
    ordered = [verdict for verdict in ordered if not _as_in_baseline(verdict)]
    numbers = ("value", "limit", "by how much")
    table = frame(("result", "artifact", "check", "target", *numbers), numbers, whole=("result", "artifact"))
    for verdict in ordered:
        word = standing(verdict.status)
        if is_broken(verdict):
            word.stylize("bold red")
        row(
            table,
            word,
            verdict.artifact,
            verdict.check,
            place_text(verdict.target, [verdict.kind]),
            value_text(verdict),
            limit_text(verdict),
            margin(verdict),
        )
    lines = [f"{v.artifact} {v.check}: {v.message}" for v in ordered if v.value is None and is_broken(v)]
    lines += [f"{v.artifact} {v.check}: {detail}" for v in ordered for detail in shown_details(v)]
    if unchanged:
        lines.append(f"{unchanged} figures are exactly as in the baseline")
    return _with_lines(table, lines)


DETAILS_SHOWN = 12
"""Lines below a table on what stands behind one check."""


def shown_details(verdict: Verdict) -> tuple[str, ...]:
    """Return what stands behind a check, as many lines as a terminal has room for."""
    more = len(verdict.details) - DETAILS_SHOWN
    return (*verdict.details[:DETAILS_SHOWN], *([f"and {more} more"] if more > 0 else []))


def _as_in_baseline(verdict: Verdict) -> bool:
    return verdict.status == "pass" and verdict.baseline is not None and verdict.value == verdict.baseline


def parity_table(parities: Iterable[ArtifactParity]) -> RenderableType:
    """One row an output of an artifact: how far it is from the source model and from its program."""
    numbers = ("samples", "SQNR", "max error", "top-1", "steps", "accuracy")
    table = frame(("artifact", "status", "output", *numbers), numbers)
    reasons = []
    for item in parities:
        parity = item.parity
        if parity.reason:
            reasons.append(f"{item.artifact}: {parity.reason}")
        if not parity.versus_source:
            row(table, item.artifact, standing(parity.status), "", *("–" for _ in numbers))
        programs = {output.name: output for output in parity.versus_program}
        for output in parity.versus_source:
            program = programs.get(output.name)
            row(
                table,
                item.artifact,
                standing(parity.status),
                output.name,
                str(parity.samples),
                format_figure(output.sqnr_db, "dB"),
                f"{output.max_abs_error:.3g}",
                format_figure(output.top1_agreement, "share"),
                "–" if program is None or program.max_steps is None else f"{program.max_steps:.3g}",
                format_figure(parity.accuracy, "share"),
            )
    return _with_lines(table, reasons)


def plan_table(artifacts: Iterable[PlannedArtifact], devices: Mapping[str, Sequence[str]]) -> RenderableType:
    """One row an artifact to make: what it is lowered from, where it will run, and its devices by the artifact's id."""
    table = frame(("artifact", "from program", "batch", "verified", "profiled on"))
    for artifact in artifacts:
        verified = "here" if artifact.not_here is None else f"not run: {artifact.not_here}"
        profiled = ", ".join(devices[artifact.id]) if artifact.not_here is None else ""
        row(table, artifact.id, artifact.program, "any" if artifact.dynamic_batch else "1", verified, profiled or "–")
    return table


def compare_table(comparison: Comparison) -> RenderableType:
    """Two builds side by side: one row a figure of an artifact that both have, one row an artifact that one has."""
    numbers = comparison.heads
    table = frame(("artifact", "figure", "target", *numbers, "change", "standing"), (*numbers, "change"))
    for index, figure in enumerate(comparison.training):
        _compared_row(table, "training" if index == 0 else "", figure, comparison)
    for artifact in comparison.artifacts:
        table.add_section()
        shown = artifact.figures if artifact.standing == "both" else artifact.figures[:1]  # its size says it is there
        for index, figure in enumerate(shown):
            _compared_row(table, artifact.id if index == 0 else "", figure, comparison)
        if not shown:
            word = "failed in both" if artifact.standing == "both" else artifact.standing
            row(table, artifact.id, "", "", "–", "–", "", _compared_word(comparison, word))
    return _with_lines(table, [f"note: {note}" for note in comparison.notes])


def facts_table(comparison: Comparison) -> RenderableType:
    """What two builds are: one row a fact, one column a build."""
    table = frame(("", *comparison.heads))
    for fact in comparison.facts:
        row(table, fact.name, fact.before, fact.after)
    return table


def _compared_word(comparison: Comparison, word: str) -> Text:
    """Return a standing in its colour; between two frameworks nobody is worse, so nothing is red."""
    style = "bold" if comparison.across_frameworks and word in ("better", "worse") else STYLES.get(word, "")
    return Text(comparison.word(word), style=style)


def _compared_row(table: Table, name: str, figure: ComparedFigure, comparison: Comparison) -> None:
    row(
        table,
        name,
        figure.title,
        figure.place,
        *figure.texts,
        figure.change,
        _compared_word(comparison, figure.standing),
    )


def _with_lines(table: Table, lines: Iterable[str]) -> RenderableType:
    """Put sentences below a table."""
    below = Text("\n").join(Text(line) for line in lines)
    if not below:
        return table
    whole = Table.grid()
    whole.add_row(table)
    whole.add_row(below)
    return whole
