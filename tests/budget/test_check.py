"""A whole check: its verdicts, its budgets file, and what CI reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sample_builds
from hypothesis import given
from hypothesis import strategies as st

from edgekit.budget import CheckReport, check, junit_xml, load_budgets, markdown_summary
from edgekit.budget.markdown import escape
from edgekit.errors import ArtifactError, RecipeError
from edgekit.records import Verdict, from_json, to_json

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def report() -> CheckReport:
    return check(sample_builds.manifest())


def healthy() -> CheckReport:
    build = sample_builds.manifest()
    return check(replace(build, artifacts=build.artifacts[:2]), budgets=[])


def make(message: str, artifact: str = "tflite/int8", check_name: str = "size") -> CheckReport:
    verdict = Verdict(
        check=check_name, artifact=artifact, target=None, limit=1.0, value=2.0, unit="", direction="max",
        status="fail", message=message,
    )  # fmt: skip
    return CheckReport(name="x", verdicts=(verdict,), passed=False)


def test_check_uses_the_recipes_budgets_when_none_are_given(report: CheckReport) -> None:
    assert not report.passed
    assert [(v.artifact, v.check, v.status) for v in report.broken] == [
        ("onnx/int8", "parity", "fail"),
        ("tflite/int16x8", "built", "fail"),
        ("onnx/int8", "max_steps", "fail"),
        ("coreml/int8", "max_steps", "not run"),
    ]


def test_check_passes_when_parity_was_only_not_run_here() -> None:
    build = sample_builds.manifest()
    found = check(replace(build, artifacts=(sample_builds.find(build, "coreml/fp16"),)), budgets=[])
    assert found.passed
    assert [(v.check, v.status) for v in found.verdicts] == [("parity", "not run")]


def test_check_fails_when_a_stage_after_the_export_failed() -> None:
    build = sample_builds.manifest()
    failed = replace(sample_builds.find(build, "tflite/fp32"), error=build.artifacts[-1].error)
    found = check(replace(build, artifacts=(failed,)), budgets=[])
    assert [v.check for v in found.broken] == ["ran"]


def test_check_adds_the_baseline_when_one_is_given() -> None:
    build = sample_builds.manifest()
    fewer = replace(build, artifacts=build.artifacts[1:])
    assert check(fewer, budgets=[], baseline=build).broken[-1].check == "artifact_vs_baseline"


def test_check_refuses_budgets_of_a_manifest_that_cannot_be_read() -> None:
    build = replace(sample_builds.manifest(), recipe={"budgets": [{"artifact": "a", "size": 80}]})
    with pytest.raises(ArtifactError, match="budgets that cannot be read"):
        check(build)


def test_check_report_is_equal_when_read_back_from_json(report: CheckReport) -> None:
    assert from_json(CheckReport, to_json(report)) == report


def test_budgets_file_replaces_budgets_and_tolerances(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(
        "schema_version: 1\n"
        "budgets: [{artifact: tflite/*, size: 1 MiB, latency_p50: {host: 2 ms}}]\n"
        "regression: {latency_factor: 1.5}\n",
        encoding="utf-8",
    )
    found = load_budgets(file)
    assert found.budgets is not None
    assert found.budgets[0].size == 1024**2
    assert found.budgets[0].latency_p50 == {"host": 2.0}
    assert (found.regression.latency_factor, found.regression.size_growth) == (1.5, 0.01)


def test_budgets_of_the_recipe_hold_when_the_file_has_none(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text("schema_version: 1\n", encoding="utf-8")
    assert load_budgets(file).budgets is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version: 1\nbudget: []", "unknown key 'budget'. Did you mean 'budgets'"),
        ("schema_version: 1\nregression: {latency_facter: 2}", "Did you mean 'latency_factor'"),
        (
            "schema_version: 1\nbudgets: [{artifact: a, sizes: 1 kB}]",
            "budgets.0.sizes: unknown key .*'size'",
        ),
        ("schema_version: 1\nbudgets: [{artifact: a, size: 80}]", "with a unit"),
        ("schema_version: 1\nregression: {latency_factor: 0.5}", "regression.latency_factor: .*greater than or equal"),
        ("schema_version: 2", "newer than this edgekit understands"),
        ("budgets: []", "schema_version: this key is required"),
        ("- 1", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_budgets_file_is_refused_with_its_place_when_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message) as raised:
        load_budgets(file)
    assert str(file) in str(raised.value)


def test_budgets_file_is_refused_when_missing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected a budgets file; there is none at"):
        load_budgets(tmp_path / "none.yaml")


def test_markdown_equals_the_golden_text(report: CheckReport) -> None:
    assert markdown_summary(report) == (GOLDEN / "check.md").read_text(encoding="utf-8")


def test_markdown_says_so_when_every_check_holds() -> None:
    text = markdown_summary(healthy())
    assert text.startswith("## ✅ digits: every check holds (2)")
    assert "❌" not in text


def test_markdown_keeps_its_table_when_names_hold_its_signs() -> None:
    text = markdown_summary(make("a | b <img src=x>\nnext `line`", artifact="a|b/<i>_x_"))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") == 8 for line in rows)
    assert "<img" not in text.replace("\\<img", "")
    assert "- **a\\|b/\\<i\\>\\_x\\_ size**: a \\| b \\<img src=x\\> next \\`line\\`" in text


@given(st.text())
def test_escaped_text_is_one_line_without_bare_signs(text: str) -> None:
    escaped = escape(text)
    assert not {"\n", "\r"} & set(escaped)
    bare = escaped.replace("\\\\", "")
    assert not any(sign in bare.replace(f"\\{sign}", "") for sign in "|<>`")


def test_junit_equals_the_golden_text(report: CheckReport) -> None:
    assert junit_xml(report) == (GOLDEN / "check.xml").read_text(encoding="utf-8")


def test_junit_counts_agree_with_its_cases(report: CheckReport) -> None:
    root = ElementTree.fromstring(junit_xml(report))
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase")) == len(report.verdicts)
    assert int(root.attrib["failures"]) == len(root.findall(".//failure")) == len(report.broken)
    assert int(root.attrib["skipped"]) == len(root.findall(".//skipped")) == 2
    for suite in root.findall("testsuite"):
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))


def test_junit_names_stay_unique_when_two_budgets_limit_one_figure() -> None:
    one = make("m").verdicts[0]
    root = ElementTree.fromstring(
        junit_xml(CheckReport(name="x", verdicts=(one, replace(one, limit=3.0)), passed=False))
    )
    assert [case.attrib["name"] for case in root.iter("testcase")] == ["size", "size #2"]


def test_junit_carries_notes_when_something_was_not_compared() -> None:
    root = ElementTree.fromstring(junit_xml(replace(healthy(), notes=("new & <unknown>",))))
    assert [element.text for element in root.iter("system-out")] == ["new & <unknown>"]


@given(st.text())
def test_junit_is_well_formed_when_a_message_holds_anything(message: str) -> None:
    root = ElementTree.fromstring(junit_xml(make(message)))
    assert len(root.findall(".//failure")) == 1
