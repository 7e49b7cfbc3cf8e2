"""The top of the report: the verdict on a build, its artifacts in one table, its checks. Text only, no HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.budget.check import standing_verdicts
from edgekit.budget.figures import FIGURES, format_change, format_with_band, kinds_on, place_text, targets_of
from edgekit.budget.limits import is_broken
from edgekit.budget.markdown import limit_text, margin, value_text
from edgekit.records import ArtifactReport, Manifest, MeasuredProfile, ProfileKind, Verdict

Standing = Literal["pass", "fail", "not run", "error"]
STANDING_WORDS = {"pass": "pass", "fail": "fail", "not run": "not run", "error": "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure as text: its change against another build, and why it is missing where it is."""

    text: str
    change: str = ""
    better: bool | None = None
    missing: str = ""
    sort: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeColumn:
    """A column of the summary that belongs to a target, and to one kind of number."""

    figure: str
    target: str
    kind: ProfileKind

    @property
    def heading(self) -> tuple[str, str]:
        """What it is, and where: ``("p50", "host (measured)")``."""
        title = {"latency_p50": "p50", "latency_p95": "p95"}.get(self.figure, self.figure)
        return title, place_text(self.target, [self.kind])


HEADLINES_BY_KIND: dict[ProfileKind, tuple[str, ...]] = {
    "measured": ("latency_p50", "latency_p95"),
    "emulated": ("latency_p50", "instructions"),
    "predicted": ("latency_p50",),
}


def headline_times(reports: Sequence[ArtifactReport]) -> tuple[TimeColumn, ...]:
    """Return the columns that the targets of a build have, by the kind of number that each gives."""
    return tuple(
        TimeColumn(figure=figure, target=target, kind=kind)
        for target in targets_of(reports)
        for kind in kinds_on(reports, target)
        for figure in HEADLINES_BY_KIND[kind]
        if figure == "instructions" or _is_known(reports, figure, target)
    )


def _is_known(reports: Sequence[ArtifactReport], figure: str, target: str) -> bool:
    return any(FIGURES[figure].read(report, target).value is not None for report in reports)


def bands_told(reports: Iterable[ArtifactReport]) -> tuple[tuple[str, str], ...]:
    """Return ``(target, what its error bands rest on)``, each once."""
    profiles = (profile for report in reports for profile in report.profiles)
    told = {
        (place_text(profile.target, [profile.kind]), profile.latency_ms.basis): None
        for profile in profiles
        if not isinstance(profile, MeasuredProfile) and profile.latency_ms is not None
    }
    return tuple(told)


def kinds_of(reports: Iterable[ArtifactReport]) -> tuple[ProfileKind, ...]:
    """Return which kinds of number a build holds, in the order in which they appear."""
    return tuple(dict.fromkeys(profile.kind for report in reports for profile in report.profiles))


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One artifact in the summary. ``times`` holds a cell for each column of :func:`headline_times`."""

    id: str
    anchor: str
    standing: Standing
    reason: str
    size: Cell
    accuracy: Cell
    drop: Cell
    sqnr: Cell
    delegated: Cell
    times: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One check as text."""

    verdict: Verdict
    broken: bool
    place: str
    value: str
    limit: str
    margin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The verdict on the whole build."""

    standing: Literal["pass", "fail"]
    title: str
    lines: tuple[str, ...]


def verdicts_of(report: ArtifactReport) -> tuple[Verdict, ...]:
    """Return what an artifact was held against: built and parity, then the verdicts that the build recorded."""
    recorded = {verdict.check for verdict in report.verdicts}
    standing = (verdict for verdict in standing_verdicts(report) if verdict.check not in recorded)
    return (*standing, *dict.fromkeys(report.verdicts))


def verdict_rows(manifest: Manifest) -> tuple[VerdictRow, ...]:
    """Return every check of a build, broken ones first."""
    rows = [
        VerdictRow(
            verdict=verdict,
            broken=is_broken(verdict),
            place=place_text(verdict.target, [verdict.kind]),
            value=value_text(verdict),
            limit=limit_text(verdict),
            margin=margin(verdict),
        )
        for report in manifest.artifacts
        for verdict in verdicts_of(report)
    ]
    return tuple(sorted(rows, key=lambda row: not row.broken))


def standing_of(report: ArtifactReport) -> Standing:
    """Return an artifact's standing in one word: ``pass`` only if it ran and nothing is broken."""
    if report.error is not None or report.artifact is None:
        return "error"
    if any(is_broken(verdict) for verdict in verdicts_of(report)):
        return "fail"
    ran = report.parity is not None and report.parity.status == "pass"
    return "pass" if ran else "not run"


def banner(manifest: Manifest) -> Banner:
    """Sum a build up: what is broken, what failed, and what could not be run here."""
    rows = verdict_rows(manifest)
    broken = sum(row.broken for row in rows)
    standings = [standing_of(report) for report in manifest.artifacts]
    lines = [f"{_count(standings.count('pass'), 'artifact')} of {len(standings)} ran here and kept every check."]
    if standings.count("error"):
        lines.append(f"{_count(standings.count('error'), 'artifact')} failed on the way.")
    idle = [
        report.id for report in manifest.artifacts if report.parity is not None and report.parity.status == "not run"
    ]
    if idle:
        lines.append(f"Not run here, so neither passed nor failed by themselves: {', '.join(idle)}.")
    if broken:
        return Banner(standing="fail", title=f"{broken} of {_count(len(rows), 'check')} broken", lines=tuple(lines))
    kept = sum(row.verdict.status == "pass" for row in rows)
    return Banner(standing="pass", title=f"{_count(kept, 'check')} kept, none broken", lines=tuple(lines))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def summary_rows(manifest: Manifest, other: Manifest | None) -> tuple[SummaryRow, ...]:
    """Return the summary, with changes against another build where one is given."""
    before = {report.id: report for report in other.artifacts} if other else {}
    columns = headline_times(manifest.artifacts)

    def row(index: int, report: ArtifactReport) -> SummaryRow:
        def cell(name: str, target: str | None = None) -> Cell:
            return _cell(name, report, before.get(report.id), target)

        return SummaryRow(
            id=report.id,
            anchor=f"artifact-{index}",
            standing=standing_of(report),
            reason=_reason(report),
            size=cell("size"),
            accuracy=cell("accuracy"),
            drop=cell("accuracy_drop"),
            sqnr=cell("sqnr_db"),
            delegated=cell("delegated"),
            times=tuple(cell(column.figure, column.target) for column in columns),
        )

    return tuple(row(index, report) for index, report in enumerate(manifest.artifacts))


def _cell(name: str, report: ArtifactReport, before: ArtifactReport | None, target: str | None) -> Cell:
    kind = FIGURES[name]
    figure = kind.read(report, target)
    earlier = kind.read(before, target) if before else None
    old = earlier.value if earlier is not None and earlier.kind == figure.kind else None
    change, better = "", None
    if figure.value is not None and old is not None and figure.value != old:
        change = format_change(figure.value - old, old, kind.unit)
        better = (figure.value < old) == (kind.direction == "max")
    return Cell(
        text=format_with_band(figure.value, kind.unit, figure.band),
        change=change,
        better=better,
        missing=figure.missing,
        sort=figure.value,
    )


def _reason(report: ArtifactReport) -> str:
    if report.error is not None:
        return f"{report.error.stage}: {report.error.message}"
    broken = [verdict.message for verdict in verdicts_of(report) if is_broken(verdict)]
    if broken:
        return "; ".join(broken)
    if report.parity is not None and report.parity.status == "not run":
        return report.parity.reason or "not run"
    return ""
