"""Verdicts as JUnit XML, which CI systems show as tests: one suite an artifact, one case a check."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from edgekit.budget.check import CheckReport
from edgekit.budget.figures import format_figure
from edgekit.budget.limits import is_broken
from edgekit.budget.markdown import value_text
from edgekit.records import Verdict

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2, Char) cannot hold even when escaped: a converter's message may carry such bytes."""


def junit_xml(report: CheckReport) -> str:
    """Write a check as JUnit XML; the same bytes for the same verdicts (no times, no host names)."""
    suites = ElementTree.Element("testsuites", _counts(report.verdicts) | {"name": _clean(f"edgekit {report.name}")})
    for artifact in dict.fromkeys(verdict.artifact for verdict in report.verdicts):
        mine = [verdict for verdict in report.verdicts if verdict.artifact == artifact]
        suite = ElementTree.SubElement(suites, "testsuite", _counts(mine) | {"name": _clean(artifact)})
        names: Counter[str] = Counter()
        for verdict in mine:
            name = f"{verdict.check}[{verdict.target}]" if verdict.target else verdict.check
            names[name] += 1
            # Two budgets may limit the same figure; CI systems take cases of one name for one test.
            _add_case(suite, verdict, name if names[name] == 1 else f"{name} #{names[name]}")
    if report.notes:
        # The schema has no place for text at the top level; every suite may have it.
        holder = ElementTree.SubElement(suites, "testsuite", _counts(()) | {"name": "notes"})
        ElementTree.SubElement(holder, "system-out").text = _clean("\n".join(report.notes))
    ElementTree.indent(suites)
    return "<?xml version='1.0' encoding='UTF-8'?>\n" + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    broken = sum(is_broken(verdict) for verdict in verdicts)
    skipped = sum(verdict.status == "not run" and not is_broken(verdict) for verdict in verdicts)
    return {"tests": str(len(verdicts)), "failures": str(broken), "errors": "0", "skipped": str(skipped)}


def _add_case(suite: ElementTree.Element, verdict: Verdict, name: str) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": _clean(f"edgekit.{verdict.artifact}"), "name": _clean(name), "time": "0"}
    )
    message = _clean(verdict.message)
    if is_broken(verdict):
        failure = ElementTree.SubElement(case, "failure", {"type": verdict.status, "message": message})
        lines = [f"value: {value_text(verdict)}", f"limit: {format_figure(verdict.limit, verdict.unit)}"]
        if verdict.kind is not None:
            lines.append(f"kind: {verdict.kind}")
        failure.text = _clean("\n".join([*lines, *verdict.details]))
    elif verdict.status == "not run":
        ElementTree.SubElement(case, "skipped", {"message": message})


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
