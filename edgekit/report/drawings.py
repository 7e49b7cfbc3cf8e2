"""Which plots a report shows, and of what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from edgekit.budget.figures import (
    FIGURES,
    Figure,
    FigureKind,
    format_figure,
    format_with_band,
    kinds_on,
    place_text,
    targets_of,
)
from edgekit.records import ArtifactReport, EpochMetrics, LatencyMs, Manifest, TrainingReport, WeightHistogram
from edgekit.report import plots
from edgekit.report.overview import standing_of
from edgekit.units import format_duration_ms, format_size

FORMAT_TITLES = {"tflite": "TFLite", "executorch": "ExecuTorch", "coreml": "Core ML", "onnx": "ONNX"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot with its heading, the names of its curves (style, name), and what it leaves out."""

    title: str
    svg: Markup
    keys: tuple[tuple[int, str], ...] = ()
    left_out: tuple[str, ...] = ()


def trade_offs(manifest: Manifest) -> tuple[Plot, ...]:
    """Draw quality against size and against latency on each target, and latency against size.

    Quality is the accuracy, or the SQNR against the source model where the samples have no labels.
    """
    has_accuracy = any(FIGURES["accuracy"].read(report, None).value is not None for report in manifest.artifacts)
    quality = "accuracy" if has_accuracy else "sqnr_db"
    pairs: list[tuple[str, str, str | None]] = [("size", quality, None)]
    for target in targets_of(manifest.artifacts):
        timed = any(FIGURES["latency_p50"].read(report, target).value is not None for report in manifest.artifacts)
        cost = "latency_p50" if timed else "instructions"
        pairs += [(cost, quality, target), ("size", cost, target)]
    drawn = (_trade_off(manifest.artifacts, *pair) for pair in pairs)
    return tuple(plot for plot in drawn if plot.svg)


def _trade_off(reports: Sequence[ArtifactReport], x_name: str, y_name: str, target: str | None) -> Plot:
    x_kind, y_kind = FIGURES[x_name], FIGURES[y_name]
    points, left_out = [], []
    place = place_text(target, kinds_on(reports, target))
    for report in reports:
        x, y = x_kind.read(report, target), y_kind.read(report, target)
        if x.value is None or y.value is None:
            left_out.append(f"{report.id} ({x.missing or y.missing})")
            continue
        format_name, _, precision = report.id.partition("/")
        points.append(
            plots.Point(
                x=x.value,
                y=y.value,
                label=precision,
                tip=f"{report.id}: {_tip(x, x_kind)}, {_tip(y, y_kind)}",
                series=series_of(format_name),
                broken=standing_of(report) in ("fail", "error"),
            )
        )
    svg = plots.scatter(
        points,
        _axis(x_kind, place, [point.x for point in points]),
        _axis(y_kind, place, [point.y for point in points]),
        higher_is_better=y_kind.direction == "min",
    )
    title = f"{y_kind.title} against {x_kind.title}" + (f" on {place}" if place else "")
    return Plot(title=title[0].upper() + title[1:], svg=svg, left_out=tuple(left_out))


def _tip(figure: Figure, kind: FigureKind) -> str:
    return format_with_band(figure.value, kind.unit, figure.band)


def _axis(kind: FigureKind, place: str, values: Sequence[float]) -> plots.Axis:
    title = f"{kind.title} on {place}" if place and kind.per_target else kind.title
    largest = max(values, default=0.0)
    unit = next((1024.0**power for power in (3, 2, 1) if largest >= 1024**power), 1.0) if kind.unit == "bytes" else 1.0
    return plots.Axis(title=title, text=_tick(kind.unit), unit=unit, most=_most(kind.unit))


def _most(unit: str) -> float | None:
    return 1.0 if unit == "share" else None


def _tick(unit: str) -> plots.TickText:
    if unit == "share":
        return lambda value: f"{value * 100:.4g} %"
    if unit == "bytes":
        return lambda value: format_size(value).replace(".0 ", " ")
    if unit == "instructions":
        return lambda value: f"{value / 1e6:.3g} M"
    return lambda value: "0" if value == 0 else format_figure(value, unit)


def series_of(format_name: str) -> int:
    """Return the style (colour and marker) of a format."""
    return list(FORMAT_TITLES).index(format_name) if format_name in FORMAT_TITLES else 0


def training_plots(training: TrainingReport) -> tuple[Plot, ...]:
    """Draw loss, accuracy, sparsity and throughput over the epochs."""
    epochs = training.epochs
    marks = [
        (index, epoch.phase) for index, epoch in enumerate(epochs) if index and epoch.phase != epochs[index - 1].phase
    ]

    def plot(title: str, unit: str, **values: list[float | None]) -> Plot:
        lines = [
            plots.Line(name=name, values=found, series=series) for series, (name, found) in enumerate(values.items())
        ]
        keys = tuple((line.series, line.name) for line in lines) if len(lines) > 1 else ()
        svg = plots.curves(lines, plots.Axis(title=title, text=_tick(unit), most=_most(unit)), "epoch", marks)
        return Plot(title=title, svg=svg, keys=keys)

    drawn = [
        plot("Loss", "", loss=[epoch.loss for epoch in epochs]),
        plot(
            "Accuracy",
            "share",
            training=[epoch.accuracy for epoch in epochs],
            validation=[epoch.validation_accuracy for epoch in epochs],
        ),
        plot("Samples a second", "", rate=[epoch.samples_per_second for epoch in epochs]),
    ]
    if any(epoch.sparsity for epoch in epochs):
        drawn.append(plot("Sparsity", "share", sparsity=[epoch.sparsity for epoch in epochs]))
    return tuple(found for found in drawn if found.svg)


def compared_training_plots(
    first: TrainingReport | None, second: TrainingReport | None, names: tuple[str, str]
) -> tuple[Plot, ...]:
    """Draw loss, validation accuracy and throughput of two trainings over their epochs, one curve each.

    Args:
        first: None where there was no training: its curve is left out.
        second: The same.
        names: What to call them.
    """
    epochs = [report.epochs if report else () for report in (first, second)]

    def plot(title: str, unit: str, pick: Callable[[EpochMetrics], float | None]) -> Plot:
        lines = [
            plots.Line(name=name, values=[pick(epoch) for epoch in found], series=series)
            for series, (name, found) in enumerate(zip(names, epochs, strict=True))
            if found
        ]
        svg = plots.curves(lines, plots.Axis(title=title, text=_tick(unit), most=_most(unit)), "epoch")
        return Plot(title=title, svg=svg, keys=tuple((line.series, line.name) for line in lines))

    drawn = (
        plot("Loss", "", lambda epoch: epoch.loss),
        plot("Validation accuracy", "share", lambda epoch: epoch.validation_accuracy),
        plot("Samples a second", "", lambda epoch: epoch.samples_per_second),
    )
    return tuple(found for found in drawn if found.svg)


def histogram_plots(histograms: Sequence[WeightHistogram]) -> tuple[Plot, ...]:
    """Draw the float weights of each layer."""
    return tuple(
        Plot(
            title=found.layer,
            svg=plots.histogram(found.edges, found.counts, f"weights of {found.layer}", lambda edge: f"{edge:.3g}"),
        )
        for found in histograms
    )


def latency_plot(latency: LatencyMs, bins: int = 32) -> Plot | None:
    """Draw how the timings are spread; None where the samples were not kept."""
    samples = [sample for sample in latency.samples if isfinite(sample)]
    if len(samples) < 2 or max(samples) <= min(samples):
        return None
    low, step = min(samples), (max(samples) - min(samples)) / bins
    counts = [0] * bins
    for sample in samples:
        counts[min(bins - 1, int((sample - low) / step))] += 1
    edges = [low + index * step for index in range(bins + 1)]
    return Plot(
        title=f"{len(samples)} runs",
        svg=plots.histogram(edges, counts, "spread of the latency", format_duration_ms),
    )
