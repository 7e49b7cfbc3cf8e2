"""The HTML report, terminal tables, and the comparison of two builds."""

from __future__ import annotations

from edgekit.report.compare import Comparison, compare_builds
from edgekit.report.compare_html import render_comparison
from edgekit.report.html import render_report

__all__ = ["Comparison", "compare_builds", "render_comparison", "render_report"]
