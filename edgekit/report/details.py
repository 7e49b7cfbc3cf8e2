"""The details of one artifact and of its program as text and shares, for the report and for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.budget.figures import format_figure, profile_on, targets_of
from edgekit.records import (
    DelegateCoverage,
    LatencyMs,
    LayerError,
    Manifest,
    MeasuredProfile,
    OutputParity,
    PrecisionAudit,
)
from edgekit.units import format_size


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
            profile: MeasuredProfile | None = profile_on(report, target)
            if profile is not None:
                found[target] = tuple(sorted(profile.machine.items()))
                break
    return tuple(found.items())


def size_text(size_bytes: int) -> str:
    """Print a size with its exact number of bytes."""
    return f"{format_size(size_bytes)} ({size_bytes:,} bytes)"
