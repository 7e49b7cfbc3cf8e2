"""Predicted against published, drawn: results/fidelity.svg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.fidelity.errors import Estimate

BAND = 0.15
LAYERS = ("static", "trace")


def draw(estimates: Sequence[Estimate], path: Path) -> None:
    """Draw a panel a layer and anchoring; filled marks are held out, hollow ones were looked at."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Ids and dates of an SVG would otherwise change from run to run.
    mpl.rcParams["svg.hashsalt"] = "fidelity"
    from matplotlib import lines, pyplot

    panels = [(layer, anchored) for layer in LAYERS for anchored in (False, True)]
    figure, axes = pyplot.subplots(2, 2, figsize=(10.5, 9.5), layout="constrained")
    cores = sorted({each.core for each in estimates})
    colors = {core: pyplot.get_cmap("tab10")(index % 10) for index, core in enumerate(cores)}
    for axis, (layer, anchored) in zip(axes.flat, panels, strict=True):
        chosen = [each for each in estimates if each.layer == layer and each.anchored == anchored]
        _panel(axis, chosen, colors)
        axis.set_title(f"{layer}, {'anchored on one measurement' if anchored else 'no measurement of the device'}")
    handles = [lines.Line2D([], [], marker="o", linestyle="", color=colors[core], label=core) for core in cores]
    handles += [lines.Line2D([], [], marker=m, linestyle="", color="0.4", label=text) for m, text in _SHAPES]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


_SHAPES = (("o", "XNNPACK fp32"), ("s", "ncnn fp32 or fp16"), ("^", "ncnn int8"))


def _panel(axis, estimates: Sequence[Estimate], colors: Mapping[str, object]) -> None:  # type: ignore[no-untyped-def]
    axis.set(xscale="log", yscale="log", xlabel="published, ms", ylabel="predicted, ms")
    bounds = [figure for each in estimates for figure in (each.published_ms, each.estimate_ms)] or [1.0, 10.0]
    low, high = min(bounds) * 0.8, max(bounds) * 1.25
    axis.fill_between(
        [low, high], [low * (1 - BAND), high * (1 - BAND)], [low * (1 + BAND), high * (1 + BAND)], color="0.92"
    )
    axis.plot([low, high], [low, high], color="0.6", linewidth=1)
    axis.set(xlim=(low, high), ylim=(low, high))
    for each in estimates:
        marker = "o" if each.engine == "xnnpack" else "^" if each.network.endswith("_int8") else "s"
        face = colors[each.core] if each.standing == "held out" else "none"
        axis.plot(
            each.published_ms, each.estimate_ms, marker, color=colors[each.core], markerfacecolor=face, markersize=5
        )
