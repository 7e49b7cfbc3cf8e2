"""Budgets, baselines and their verdicts."""

from __future__ import annotations

from edgekit.budget.baseline import Tolerances, compare_with_baseline
from edgekit.budget.check import CheckReport, check
from edgekit.budget.junit import junit_xml
from edgekit.budget.limits import check_budgets_can_be_judged, evaluate_budgets, is_broken, match_artifacts
from edgekit.budget.load import BudgetsFile, load_budgets
from edgekit.budget.markdown import markdown_summary

__all__ = [
    "BudgetsFile",
    "CheckReport",
    "Tolerances",
    "check",
    "check_budgets_can_be_judged",
    "compare_with_baseline",
    "evaluate_budgets",
    "is_broken",
    "junit_xml",
    "load_budgets",
    "markdown_summary",
    "match_artifacts",
]
