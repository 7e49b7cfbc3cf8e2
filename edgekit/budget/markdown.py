"""Verdicts as GitHub-flavoured Markdown, for a step summary or a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgekit.budget.check import CheckReport
from edgekit.budget.figures import format_change, format_figure, format_with_band, place_text
from edgekit.budget.limits import is_broken
from edgekit.records import Verdict

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")
_LINE_END = re.compile(r"\r\n|\r|\n")
DETAILS_SHOWN = 20
"""Lines below a broken check; a comment on a pull request has room for no more."""
_HEAD = "| | artifact | check | target | value | limit | by how much |\n|---|---|---|---|---:|---:|---:|"


def markdown_summary(report: CheckReport) -> str:
    """Write a check as Markdown: broken checks first and open, the kept ones folded away."""
    broken = report.broken
    kept = [verdict for verdict in report.verdicts if not is_broken(verdict)]
    if report.passed:
        title = f"✅ {escape(report.name)}: every check holds ({len(kept)})"
    else:
        title = f"❌ {escape(report.name)}: {len(broken)} of {len(report.verdicts)} checks broken"
    parts = [f"## {title}"]
    if broken:
        parts += [_table(broken), "\n".join(_told(verdict) for verdict in broken)]
    if kept:
        parts.append(f"<details><summary>{len(kept)} kept or not run here</summary>\n\n{_table(kept)}\n\n</details>")
    if report.notes:
        parts.append("Not compared:\n" + "\n".join(f"- {escape(note)}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def margin(verdict: Verdict) -> str:
    """Say how far a value lies from its limit, or from its baseline; ``–`` where either is not known.

    Example:
        A size of 92 KiB against a limit of 80 KiB: ``+12.0 KiB (+15.0 %)``.
    """
    reference = verdict.limit if verdict.baseline is None else verdict.baseline
    if verdict.value is None or reference is None:
        return "–"
    return format_change(verdict.value - reference, reference, verdict.unit)


def value_text(verdict: Verdict) -> str:
    """Print a verdict's value, an estimate with its band."""
    return format_with_band(verdict.value, verdict.unit, verdict.band)


def limit_text(verdict: Verdict) -> str:
    """Print a limit with its direction: ``≤ 80.0 KiB``; ``–`` where there is none."""
    if verdict.limit is None:
        return "–"
    return f"{'≤' if verdict.direction == 'max' else '≥'} {format_figure(verdict.limit, verdict.unit)}"


def escape(text: str) -> str:
    """Escape what Markdown, a table cell or HTML would take for its own signs; line ends become spaces."""
    return _SPECIAL.sub(r"\\\1", _LINE_END.sub(" ", text.replace("&", "&amp;")))


def _table(verdicts: Sequence[Verdict]) -> str:
    return "\n".join([_HEAD, *(_row(verdict) for verdict in verdicts)])


def _row(verdict: Verdict) -> str:
    mark = "❌" if is_broken(verdict) else {"pass": "✅", "not run": "⚪", "fail": "❌"}[verdict.status]
    cells = (
        mark if verdict.status != "not run" else f"{mark} not run",
        escape(verdict.artifact),
        escape(verdict.check),
        escape(place_text(verdict.target, [verdict.kind])),
        value_text(verdict),
        limit_text(verdict),
        margin(verdict),
    )
    return f"| {' | '.join(cells)} |"


def _told(verdict: Verdict) -> str:
    """Print a broken check as a list item, with what stands behind it as items below."""
    lines = [f"- **{_name(verdict)}**: {escape(verdict.message)}"]
    lines += [f"  - {escape(detail)}" for detail in verdict.details[:DETAILS_SHOWN]]
    if len(verdict.details) > DETAILS_SHOWN:
        lines.append(f"  - and {len(verdict.details) - DETAILS_SHOWN} more")
    return "\n".join(lines)


def _name(verdict: Verdict) -> str:
    where = f" on {place_text(verdict.target, [verdict.kind])}" if verdict.target else ""
    return escape(f"{verdict.artifact} {verdict.check}{where}")
