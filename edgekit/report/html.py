"""The report of a build: one HTML file that needs nothing else, for phones and desktops, light and dark."""

from __future__ import annotations

from importlib.resources import files
from typing import TypeVar

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from edgekit.budget.figures import format_figure
from edgekit.records import Manifest, TensorSpec
from edgekit.report import details, drawings, half_precision, overview, placement
from edgekit.report.compare import compare_builds, training_rate
from edgekit.units import format_count, format_duration_ms, format_size

_Row = TypeVar("_Row")

OPERATORS_SHOWN = 600
"""Rows of one operator table; more would make the page too heavy for a phone. The manifest holds them all."""

LAYERS_SHOWN = 200
"""Bars of the per-layer errors, and weight histograms, for the same reason."""


def render_report(manifest: Manifest, *, compare_with: Manifest | None = None) -> str:
    """Render the report of a build.

    Args:
        manifest: The build.
        compare_with: Another build; figures then carry their change against it.

    Returns:
        The whole page: no other file, no network, the same bytes for the same builds.
    """
    template = page_environment().get_template("report.html.j2")
    return template.render(
        manifest=manifest,
        banner=overview.banner(manifest),
        rows=overview.summary_rows(manifest, compare_with),
        columns=overview.headline_times(manifest.artifacts),
        bands=overview.bands_told(manifest.artifacts),
        kinds=overview.kinds_of(manifest.artifacts),
        verdicts=overview.verdict_rows(manifest),
        trade_offs=drawings.trade_offs(manifest),
        training_plots=drawings.training_plots(manifest.training) if manifest.training else (),
        training_rate=training_rate(manifest),
        layer_bars=details.layer_bars(manifest.layer_errors)[:LAYERS_SHOWN],
        histograms=drawings.histogram_plots(manifest.weight_histograms[:LAYERS_SHOWN]),
        machines=details.machines(manifest),
        recipe_text=yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True),
        comparison=compare_builds(compare_with, manifest) if compare_with else None,
        format_titles=drawings.FORMAT_TITLES,
        standing_words=overview.STANDING_WORDS,
    )


def page_environment() -> Environment:
    """Return the templates of every page, with the filters and functions that they call."""
    environment = Environment(
        loader=PackageLoader("edgekit.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": format_figure,
        "size": format_size,
        "size_exact": details.size_text,
        "duration": format_duration_ms,
        "exact": format_count,
        "tensor": _tensor_text,
        "quantization": _quantization_text,
        "count": _count_text,
    }
    environment.globals |= {
        "audit_bars": details.audit_bars,
        "coverage_bars": details.coverage_bars,
        "profile_figures": details.profile_figures,
        "how_profiled": details.how_profiled,
        "group_bars": details.group_bars,
        "latency_plot": drawings.latency_plot,
        "parity_cells": details.parity_cells,
        "placement_bars": placement.placement_bars,
        "placement_sources": placement.placement_sources,
        "refused_rows": placement.refused_rows,
        "handover_text": placement.handover_text,
        "half_precision_columns": half_precision.HALF_PRECISION_COLUMNS,
        "half_precision_lines": half_precision.half_precision_lines,
        "half_precision_row": half_precision.half_precision_row,
        "series_of": drawings.series_of,
        "standing_of": overview.standing_of,
        "shown_operators": _shown_operators,
        "source_text": _source_text,
    }
    return environment


def _source_text(name: str) -> Markup:
    """Read a style sheet or script that stands in the page as it is: our own file, so there is nothing to escape."""
    return Markup(files("edgekit.report").joinpath("templates", name).read_text(encoding="utf-8"))


def _shown_operators(operators: tuple[_Row, ...]) -> tuple[_Row, ...]:
    return operators[:OPERATORS_SHOWN]


def _tensor_text(tensor: TensorSpec) -> str:
    """Print a tensor as ``float32 [1, 3, 224, 224] NCHW``; a free size as ``?``."""
    sizes = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.dtype} [{sizes}] {tensor.layout or ''}".rstrip()


def _quantization_text(tensor: TensorSpec) -> str:
    found = tensor.quantization
    if found is None:
        return ""
    if len(found.scale) > 1:
        return f"{len(found.scale)} scales along axis {found.axis}"
    return f"scale {found.scale[0]:.9g}, zero point {found.zero_point[0]}"


def _count_text(number: float) -> str:
    """Print a count with three digits: ``4.81 M``."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:g}"
