"""The figures of an artifact that limits and comparisons are about: where each lies, its unit, which way is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

from edgekit.records import (
    SQNR_CEILING_DB,
    ArtifactReport,
    EmulatedProfile,
    MeasuredProfile,
    OutputParity,
    PredictedProfile,
    Profile,
    ProfileKind,
)
from edgekit.units import format_count, format_duration_ms, format_size

Band = tuple[float, float | None]
"""Between which values the true one is expected; the upper end None: nobody can say."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, or the reason why there is none.

    Attributes:
        kind: Of a profile's figure; None for figures that no profile gives.
        band, basis: Of an estimate: where the true value is expected, and what that rests on.
    """

    value: float | None
    missing: str = ""
    kind: ProfileKind | None = None
    band: Band | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureKind:
    """What a figure is.

    Attributes:
        name: As in budgets: ``size``, ``latency_p50`` ...
        title: For people.
        unit: ``bytes``, ``ms``, ``dB``, ``steps``, ``instructions`` or ``share``.
        direction: ``max``: a limit is an upper one, less is better; ``min``: the reverse.
        per_target: Whether it belongs to a profile on a target.
        read: Find it in a report; the second argument is the target, None for figures without one.
    """

    name: str
    title: str
    unit: str
    direction: Literal["max", "min"]
    read: Callable[[ArtifactReport, str | None], Figure]
    per_target: bool = False


def profile_on(report: ArtifactReport, target: str | None) -> Profile | None:
    """Return the profile on this target, the slowest where there are several (of different settings)."""
    profiles = [profile for profile in report.profiles if profile.target == target]
    return max(profiles, key=_slowness, default=None)


def _slowness(profile: Profile) -> tuple[float, int]:
    median_ms = profile.latency_ms.median if profile.latency_ms is not None else 0.0
    return median_ms, profile.instructions if isinstance(profile, EmulatedProfile) else 0


def targets_of(reports: Iterable[ArtifactReport]) -> tuple[str, ...]:
    """Return the targets on which anything was profiled, in the order of their first profile."""
    return tuple(dict.fromkeys(profile.target for report in reports for profile in report.profiles))


def kinds_on(reports: Iterable[ArtifactReport], target: str | None) -> tuple[ProfileKind, ...]:
    """Return which kinds of number there are of a target: one, unless reports of several builds are mixed."""
    return tuple(dict.fromkeys(p.kind for report in reports for p in report.profiles if p.target == target))


def place_text(target: str | None, kinds: Iterable[str | None]) -> str:
    """Name a target with the kind of its numbers: ``pixel-4 (emulated)``; empty for figures without one."""
    told = " / ".join(dict.fromkeys(kind for kind in kinds if kind))
    return f"{target} ({told})" if target and told else target or ""


def _profiled(pick: Callable[[Profile], Figure]) -> Callable[[ArtifactReport, str | None], Figure]:
    def read(report: ArtifactReport, target: str | None) -> Figure:
        profile = profile_on(report, target)
        if profile is None:
            return Figure(None, f"it was not profiled on {target}")
        return replace(pick(profile), kind=profile.kind)

    return read


def _p50(profile: Profile) -> Figure:
    if isinstance(profile, MeasuredProfile):
        return Figure(profile.latency_ms.p50)
    latency = profile.latency_ms
    if latency is None:
        return Figure(None, "the model 'counts' gives no time; profile with 'static' or 'trace'")
    return Figure(latency.p50, band=(latency.low, latency.high), basis=latency.basis)


def _p95(profile: Profile) -> Figure:
    if isinstance(profile, MeasuredProfile):
        return Figure(profile.latency_ms.p95)
    how = "a predicted" if isinstance(profile, PredictedProfile) else "an emulated"
    return Figure(None, f"{how} latency is one estimate with an error band, it has no percentiles; see the p50")


def _peak_memory(profile: Profile) -> Figure:
    if isinstance(profile, PredictedProfile):
        return Figure(None, "memory is not predicted")
    return Figure(float(profile.memory_bytes.peak))


def _instructions(profile: Profile) -> Figure:
    if isinstance(profile, EmulatedProfile):
        return Figure(float(profile.instructions))
    return Figure(None, _uncounted(profile))


def _load_instructions(profile: Profile) -> Figure:
    if isinstance(profile, EmulatedProfile):
        return Figure(float(profile.load_instructions))
    return Figure(None, _uncounted(profile))


def _uncounted(profile: Profile) -> str:
    how = "it was predicted" if isinstance(profile, PredictedProfile) else "it was timed by a clock"
    return f"{how}, which counts no instructions; they are counted on emulated targets"


def _size(report: ArtifactReport, _target: str | None) -> Figure:
    return Figure(None, "it was not built") if report.artifact is None else Figure(float(report.artifact.size_bytes))


def _delegated(report: ArtifactReport, _target: str | None) -> Figure:
    if report.artifact is None:
        return Figure(None, "it was not built")
    coverage = report.artifact.coverage
    return Figure(None, "its delegate coverage is not known") if coverage is None else Figure(coverage.operators)


def _delegated_macs(report: ArtifactReport, _target: str | None) -> Figure:
    if report.artifact is None:
        return Figure(None, "it was not built")
    coverage = report.artifact.coverage
    return Figure(None, "its delegate coverage is not known") if coverage is None else Figure(coverage.macs)


def _neural_engine(report: ArtifactReport, _target: str | None) -> Figure:
    if report.artifact is None:
        return Figure(None, "it was not built")
    placement = report.artifact.placement
    if placement is None:
        return Figure(None, "only Core ML artifacts are placed")
    return Figure(placement.takes.get("neural_engine", 0.0), kind=placement.kind)


def _float_islands(report: ArtifactReport, _target: str | None) -> Figure:
    if report.artifact is None:
        return Figure(None, "it was not built")
    audit = report.artifact.audit
    return Figure(None, "its precision was not audited") if audit is None else Figure(float(len(audit.float_islands)))


def _not_compared(report: ArtifactReport) -> str:
    if report.parity is None:
        return "it was not compared with the source model"
    return report.parity.reason or f"the comparison is {report.parity.status}"


def _accuracy(report: ArtifactReport, _target: str | None) -> Figure:
    value = report.parity.accuracy if report.parity else None
    return Figure(value, _no_labels(report) if value is None else "")


def _accuracy_drop(report: ArtifactReport, _target: str | None) -> Figure:
    value = report.parity.accuracy_drop if report.parity else None
    return Figure(value, _no_labels(report) if value is None else "")


def _no_labels(report: ArtifactReport) -> str:
    compared = report.parity is not None and report.parity.status != "not run"
    return "the samples have no class labels to count it on" if compared else _not_compared(report)


def _sqnr(report: ArtifactReport, _target: str | None) -> Figure:
    outputs: tuple[OutputParity, ...] = report.parity.versus_source if report.parity else ()
    if not outputs:
        return Figure(None, _not_compared(report))
    return Figure(min(output.sqnr_db for output in outputs))


def _max_steps(report: ArtifactReport, _target: str | None) -> Figure:
    outputs: tuple[OutputParity, ...] = report.parity.versus_program if report.parity else ()
    if not outputs:
        return Figure(None, _not_compared(report))
    steps = [output.max_steps for output in outputs if output.max_steps is not None]
    return Figure(max(steps)) if steps else Figure(None, "its outputs are not quantized, so they have no steps")


def _of_a_device(name: str, title: str, unit: str, read: Callable[[Profile], Figure]) -> FigureKind:
    """A figure that each device of a build has its own of, and that should be small."""
    return FigureKind(name=name, title=title, unit=unit, direction="max", read=_profiled(read), per_target=True)


_KINDS = (
    FigureKind(name="size", title="size", unit="bytes", direction="max", read=_size),
    _of_a_device("latency_p50", "p50 latency", "ms", _p50),
    _of_a_device("latency_p95", "p95 latency", "ms", _p95),
    _of_a_device("peak_memory", "peak memory", "bytes", _peak_memory),
    _of_a_device("instructions", "instructions", "instructions", _instructions),
    _of_a_device("load_instructions", "instructions of loading", "instructions", _load_instructions),
    FigureKind(name="accuracy", title="accuracy", unit="share", direction="min", read=_accuracy),
    FigureKind(name="accuracy_drop", title="accuracy drop", unit="share", direction="max", read=_accuracy_drop),
    FigureKind(name="sqnr_db", title="SQNR vs source", unit="dB", direction="min", read=_sqnr),
    FigureKind(name="max_steps", title="steps vs program", unit="steps", direction="max", read=_max_steps),
    FigureKind(name="delegated", title="delegated operators", unit="share", direction="min", read=_delegated),
    FigureKind(name="delegated_macs", title="delegated MACs", unit="share", direction="min", read=_delegated_macs),
    FigureKind(
        name="neural_engine",
        title="work the Neural Engine can take",
        unit="share",
        direction="min",
        read=_neural_engine,
    ),
    FigureKind(name="float_islands", title="float islands", unit="", direction="max", read=_float_islands),
)
FIGURES: Mapping[str, FigureKind] = {kind.name: kind for kind in _KINDS}
"""Every figure by name, in the order in which tables show them."""


def format_figure(value: float | None, unit: str) -> str:
    """Print a figure with its unit, ``–`` where there is none.

    Example:
        >>> format_figure(0.984, "share"), format_figure(81920, "bytes"), format_figure(None, "ms")
        ('98.40 %', '80.0 KiB', '–')
    """
    if value is None:
        return "–"
    if not isfinite(value):
        return "not finite"
    if unit == "bytes":
        return format_size(value)
    if unit == "ms":
        return format_duration_ms(value)
    if unit == "share":
        return f"{value * 100:.2f} %"
    if unit == "dB":
        return "identical" if value >= SQNR_CEILING_DB else f"{value:.1f} dB"
    if unit == "instructions":
        return format_count(value)
    number = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{number} {unit.removesuffix('s') if value == 1 else unit}".rstrip()


def format_with_band(value: float | None, unit: str, band: Band | None) -> str:
    """Print an estimate with the band in which the true value is expected; any other figure as it is.

    Example:
        >>> format_with_band(1.2, "ms", (1.0, 1.5)), format_with_band(1.2, "ms", (0.5, None))
        ('1.2 ms (1 to 1.5)', '1.2 ms (from 0.5)')
    """
    text = format_figure(value, unit)
    if value is None or band is None:
        return text
    ends = [format_figure(end, unit) for end in band if end is not None]
    suffix = f" {text.rpartition(' ')[2]}"
    if all(end.endswith(suffix) for end in ends):
        ends = [end.removesuffix(suffix) for end in ends]
    return f"{text} ({' to '.join(ends)})" if len(ends) == 2 else f"{text} (from {ends[0]})"


def format_change(change: float, relative_to: float | None, unit: str) -> str:
    """Print by how much a figure differs, with its sign, and relative to another where that says more.

    Shares differ by points, decibels and steps by themselves; sizes, times and rates also in per cent.

    Example:
        >>> format_change(12288, 81920, "bytes"), format_change(-0.012, 0.98, "share")
        ('+12.0 KiB (+15.0 %)', '−1.20 points')
    """
    if change == 0:
        return "±0"
    sign = "−" if change < 0 else "+"
    if unit == "share":
        return f"{sign}{abs(change) * 100:.2f} points"
    text = f"{sign}{format_figure(abs(change), unit)}"
    if unit in ("bytes", "ms", "samples/s", "instructions") and relative_to:
        digits = 3 if unit == "instructions" and abs(change / relative_to) < 0.001 else 1
        text += f" ({sign}{abs(change / relative_to) * 100:.{digits}f} %)"
    return text
