"""The details of one artifact and of its program as text and shares, for the report and for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.budget.figures import format_figure, profile_on, targets_of
from edgekit.records import (
    DelegateCoverage,
    EmulatedProfile,
    LatencyEstimateMs,
    LatencyMs,
    LayerError,
    Manifest,
    MeasuredProfile,
    OutputParity,
    PrecisionAudit,
    PredictedProfile,
    Profile,
)
from edgekit.units import format_count, format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A piece of a bar: what, and how much of it (0 to 1)."""

    name: str
    share: float
    series: int


def latency_figures(latency: LatencyMs) -> tuple[tuple[str, str], ...]:
    """Return every latency figure by name, as text."""
    named = [
        ("min", latency.min),
        ("p5", latency.p5),
        ("p50", latency.median),
        ("p90", latency.p90),
        ("p95", latency.p95),
        ("p99", latency.p99),
        ("max", latency.max),
        ("mean", latency.mean),
        ("std", latency.std),
        ("load", latency.init),
        ("first run", latency.first),
    ]
    if latency.init_cold is not None:
        named.append(("load, cold", latency.init_cold))
    return tuple((name, format_figure(value, "ms")) for name, value in named)


def estimate_figures(latency: LatencyEstimateMs) -> tuple[tuple[str, str], ...]:
    """Return an estimate and its band by name, as text."""
    high = "nobody can say" if latency.high is None else format_figure(latency.high, "ms")
    return (
        ("p50, estimated", format_figure(latency.median, "ms")),
        ("band, from", format_figure(latency.low, "ms")),
        ("band, to", high),
    )


def profile_figures(profile: Profile) -> tuple[tuple[str, str], ...]:
    """Return every figure of a profile by name, as text: times, then counts, then memory."""
    if isinstance(profile, MeasuredProfile):
        memory = profile.memory_bytes
        return (
            *latency_figures(profile.latency_ms),
            ("memory, loaded", format_size(memory.init)),
            ("memory, peak", format_size(memory.peak)),
        )
    if isinstance(profile, PredictedProfile):
        return estimate_figures(profile.latency_ms)
    return (
        *(estimate_figures(profile.latency_ms) if profile.latency_ms is not None else ()),
        *_count_figures(profile),
        *_guest_memory(profile),
    )


def _count_figures(profile: EmulatedProfile) -> list[tuple[str, str]]:
    named = [("instructions", format_count(profile.instructions))]
    if profile.cycles is not None:
        named.append(("cycles, modelled", format_count(profile.cycles)))
    named += [(f"· {group.replace('_', ' ')}", format_count(count)) for group, count in _largest(profile.counts.groups)]
    named += [
        ("bytes loaded", format_size(profile.counts.load_bytes)),
        ("bytes stored", format_size(profile.counts.store_bytes)),
        ("instructions of loading", format_count(profile.load_instructions)),
    ]
    return named


def _largest(groups: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(((group, count) for group, count in groups.items() if count), key=lambda item: -item[1])


def _guest_memory(profile: EmulatedProfile) -> list[tuple[str, str]]:
    memory = profile.memory_bytes
    named = [("memory, loaded", memory.init), ("memory, peak", memory.peak), ("memory, arena", memory.arena)]
    return [(name, format_size(size)) for name, size in named if size is not None]


def group_bars(profile: EmulatedProfile) -> tuple[tuple[str, float, str], ...]:
    """Return the share of each class of instruction, largest first: name, share (0 to 1), exact count."""
    total = profile.counts.total or 1
    return tuple(
        (group.replace("_", " "), count / total, format_count(count))
        for group, count in _largest(profile.counts.groups)
    )


def how_profiled(profile: Profile) -> str:
    """Say in one line what ran an artifact and how."""
    if isinstance(profile, PredictedProfile):
        chip = profile.machine.get("chip", "unknown chip")
        return f"{profile.runtime.name}, {profile.runtime.version}; a roofline of {chip}, units {profile.compute_units}"
    config, runtime = profile.config, profile.runtime
    delegates = f" with {', '.join(runtime.delegates)}" if runtime.delegates else ""
    threads = f"{config.num_threads} thread{'' if config.num_threads == 1 else 's'}"
    where = profile.machine.get("cpu", "unknown processor")
    if not isinstance(profile, EmulatedProfile):
        how = f"{config.num_runs} runs after {config.warmup_runs} to warm up"
    else:
        modelled = "no time" if profile.model == "counts" else f"time from the {profile.model} model"
        how = f"one inference counted after {config.warmup_runs} to warm up, {modelled}"
    return f"{runtime.name} {runtime.version}{delegates}; {how}, {threads}; {where}"


def parity_cells(found: OutputParity) -> tuple[str, ...]:
    """Return one output's distance as text: SQNR, max, mean, cosine, top-1, steps, exact, within one step."""
    steps = "–" if found.max_steps is None else f"{found.max_steps:.3g} (mean {found.mean_steps or 0:.2g})"
    return (
        "identical" if found.max_abs_error == 0 else format_figure(found.sqnr_db, "dB"),
        f"{found.max_abs_error:.3g}",
        f"{found.mean_abs_error:.3g}",
        f"{found.cosine:.6f}",
        format_figure(found.top1_agreement, "share"),
        steps,
        format_figure(found.exact, "share"),
        format_figure(found.within_one_step, "share"),
    )


def layer_bars(errors: Sequence[LayerError]) -> tuple[tuple[LayerError, float, str], ...]:
    """Return the layers worst first, each with a bar's length (0 to 1: the noise in dB below the best) and its text."""
    ordered = sorted(errors, key=lambda error: error.sqnr_db)
    if not ordered:
        return ()
    worst, best = ordered[0].sqnr_db, ordered[-1].sqnr_db
    span = max(best - worst, 1.0)
    return tuple(
        (error, max(0.02, (best - error.sqnr_db) / span), format_figure(error.sqnr_db, "dB")) for error in ordered
    )


def audit_bars(audit: PrecisionAudit) -> tuple[tuple[str, tuple[Share, ...]], ...]:
    """Return the shares of each dtype by operators, multiply-accumulates and weight bytes."""
    dtypes = sorted({*audit.operators, *audit.macs, *audit.weights})

    def bar(shares: dict[str, float]) -> tuple[Share, ...]:
        ordered = sorted((dtype for dtype in dtypes if shares.get(dtype)), key=lambda dtype: -shares[dtype])
        return tuple(Share(name=dtype, share=shares[dtype], series=_dtype_series(dtype)) for dtype in ordered)

    named = (("operators", audit.operators), ("multiply-accumulates", audit.macs), ("weight bytes", audit.weights))
    return tuple((name, bar(shares)) for name, shares in named)


def _dtype_series(dtype: str) -> int:
    """Integers look alike and floats look alike, so that a float part of an int8 artifact stands out."""
    return {"int8": 0, "uint8": 0, "int4": 2, "int16": 2, "int32": 2, "float16": 3, "float32": 1}.get(dtype, 4)


def coverage_bars(coverage: DelegateCoverage) -> tuple[tuple[str, float], ...]:
    """Return the share that the delegate took, by operators, multiply-accumulates and (where profiled) time."""
    named = [("operators", coverage.operators), ("multiply-accumulates", coverage.macs)]
    if coverage.time is not None:
        named.append(("time", coverage.time))
    return tuple(named)


def machines(manifest: Manifest) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return the machine behind each target, as profiled."""
    found = {}
    for target in targets_of(manifest.artifacts):
        for report in manifest.artifacts:
            profile = profile_on(report, target)
            if profile is not None:
                found[target] = tuple(sorted(profile.machine.items()))
                break
    return tuple(found.items())


def size_text(size_bytes: int) -> str:
    """Print a size with its exact number of bytes."""
    return f"{format_size(size_bytes)} ({size_bytes:,} bytes)"
