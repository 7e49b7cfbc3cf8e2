"""Tables of one artifact: its operators, what it computes in, its times; and of two artifacts side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.budget.figures import format_figure
from edgekit.records import (
    DelegateCoverage,
    DeviceParity,
    EmulatedOperator,
    EmulatedProfile,
    MeasuredProfile,
    Operator,
    OperatorTime,
    OutputParity,
    PrecisionAudit,
    PredictedOperator,
    PredictedProfile,
    Profile,
)
from edgekit.report.details import audit_bars, coverage_bars, how_profiled, profile_figures
from edgekit.report.tables.cells import frame, row, standing
from edgekit.units import format_count, format_size


def operator_table(operators: Sequence[Operator]) -> RenderableType:
    """One row an operator, in execution order."""
    numbers = ("#", "MACs", "weights")
    table = frame(("#", "operator", "type", "computes in", "MACs", "weights", "weight dtype", "delegated"), numbers)
    for operator in operators:
        row(
            table,
            str(operator.index),
            operator.name,
            operator.type,
            operator.compute_dtype if operator.compute_dtype != "none" else operator.kind,
            f"{operator.macs:,}" if operator.macs else "",
            format_size(operator.weight_bytes) if operator.weight_bytes else "",
            operator.weight_dtype or "",
            _delegated(operator.delegated, operator.reason),
        )
    return table


def _delegated(delegated: bool, reason: str | None) -> Text:
    if delegated:
        return Text("yes", style="green")
    return Text(f"no: {reason}" if reason else "no", style="yellow")


def audit_table(audit: PrecisionAudit, coverage: DelegateCoverage | None) -> RenderableType:
    """Shares of each dtype, what breaks the integer path, and what the delegate took."""
    table = frame(("of", "computes in"))
    for name, shares in audit_bars(audit):
        row(table, name, ", ".join(f"{found.name} {format_figure(found.share, 'share')}" for found in shares) or "–")
    if coverage is not None:
        for name, share in coverage_bars(coverage):
            row(table, f"{name} taken by {coverage.delegate}", format_figure(share, "share"))
        if coverage.partitions is not None:
            row(table, "partitions", str(coverage.partitions))
    lines = [
        Text(f"{title} ({len(names)}): {', '.join(names)}")
        for title, names in (
            ("float islands between integer operators", audit.float_islands),
            ("stray dequantize–quantize pairs", audit.stray_pairs),
        )
        if names
    ]
    return Group(table, *lines)


def profile_table(profiles: Iterable[Profile]) -> RenderableType:
    """One column a profile: every figure of times, counts and memory, with what ran it and how."""
    shown = list(profiles)
    table = frame(["figure", *(_heading(profile) for profile in shown)], [_heading(profile) for profile in shown])
    figures = [dict(profile_figures(profile)) for profile in shown]
    for name in dict.fromkeys(name for column in figures for name in column):
        row(table, name, *(column.get(name, "–") for column in figures))
    notes = [Text(f"{_heading(profile)}: {how_profiled(profile)}") for profile in shown]
    for profile in shown:
        if isinstance(profile, EmulatedProfile):
            notes += [Text(line) for line in emulated_lines(profile)]
        elif isinstance(profile, MeasuredProfile):
            notes += [Text(line) for line in (*_compute_unit_lines(profile), *_parity_lines(profile.parity))]
        elif isinstance(profile, PredictedProfile):
            notes.append(Text(f"band: {profile.latency_ms.basis}"))
    notes += [Text(f"note: {note}") for profile in shown for note in profile.notes]
    return Group(table, *notes)


def emulated_lines(profile: EmulatedProfile) -> tuple[str, ...]:
    """Say what the band of an estimate rests on, and whether the device's kernels compute what this machine's do."""
    lines = []
    if profile.latency_ms is not None:
        lines.append(f"band: {profile.latency_ms.basis}")
    return (*lines, *_parity_lines(profile.parity))


def _parity_lines(parity: DeviceParity | None) -> Iterator[str]:
    if parity is not None and parity.versus_host:
        worst = min(parity.versus_host, key=lambda output: output.sqnr_db)
        distance = "identical" if worst.max_abs_error == 0 else format_figure(worst.sqnr_db, "dB")
        samples = f"{parity.samples} sample{'' if parity.samples == 1 else 's'}"
        yield f"outputs against this machine: {parity.status}, {distance} ({samples})"
    if parity is not None and parity.reason:
        yield f"outputs: {parity.reason}"


def _compute_unit_lines(profile: MeasuredProfile) -> Iterator[str]:
    for times in profile.compute_units:
        found = times.latency_ms
        figures = (("p50", found.median), ("p95", found.p95), ("first run", found.first), ("load", found.init))
        shown = ", ".join(f"{name} {format_figure(value, 'ms')}" for name, value in figures)
        memory = f", memory {format_size(times.memory_bytes.peak)}" if times.memory_bytes is not None else ""
        yield f"{times.compute_units}: {shown}{memory}"


def _heading(profile: Profile) -> str:
    return f"{profile.artifact} on {profile.target} ({profile.kind})"


def profiled_operators_table(profile: Profile) -> RenderableType:
    """One row an operator of a profile, the slowest first, with what its kind of number knows of it."""
    if isinstance(profile, EmulatedProfile):
        return emulated_operator_table(profile.operators)
    if isinstance(profile, PredictedProfile):
        return predicted_operator_table(profile.operators)
    return operator_time_table(profile.operators)


def operator_time_table(operators: Iterable[OperatorTime]) -> RenderableType:
    """One row an operator of the runtime, slowest first."""
    numbers = ("time", "share")
    table = frame(("operator", "type", *numbers, "delegated"), numbers)
    for operator in sorted(operators, key=lambda found: -found.time_ms):
        row(
            table,
            operator.name,
            operator.type,
            format_figure(operator.time_ms, "ms"),
            format_figure(operator.share, "share"),
            _delegated(operator.delegated, operator.reason),
        )
    return table


def emulated_operator_table(operators: Iterable[EmulatedOperator]) -> RenderableType:
    """One row an operator of the runtime on the guest, the largest share first: time, instructions, kernel."""
    numbers = ("est. time", "share", "instructions")
    table = frame(("operator", "type", *numbers, "kernel", "delegated"), numbers)
    for operator in sorted(operators, key=lambda found: -found.share):
        row(
            table,
            operator.name,
            operator.type,
            format_figure(operator.time_ms, "ms"),
            format_figure(operator.share, "share"),
            format_count(operator.instructions),
            operator.kernel or "–",
            _delegated(operator.delegated, operator.reason),
        )
    return table


def predicted_operator_table(operators: Iterable[PredictedOperator]) -> RenderableType:
    """One row an operation of the program, the slowest first: on which unit, and what its time goes into."""
    numbers = ("pred. time", "share", "MACs", "moved")
    table = frame(("operation", "type", "unit", *numbers, "bound by"), numbers)
    for operator in sorted(operators, key=lambda found: -found.time_ms):
        row(
            table,
            operator.name,
            operator.type,
            operator.unit.replace("_", " "),
            format_figure(operator.time_ms, "ms"),
            format_figure(operator.share, "share"),
            f"{operator.macs:,}" if operator.macs else "",
            format_size(operator.bytes) if operator.bytes else "",
            operator.bound,
        )
    return table


def output_parity_table(outputs: Iterable[OutputParity]) -> RenderableType:
    """One row an output: how far the second artifact's is from the first's."""
    numbers = ("SQNR", "max error", "mean error", "cosine", "exact")
    table = frame(("output", *numbers), numbers)
    for output in outputs:
        row(
            table,
            output.name,
            "identical" if output.max_abs_error == 0 else format_figure(output.sqnr_db, "dB"),
            f"{output.max_abs_error:.3g}",
            f"{output.mean_abs_error:.3g}",
            f"{output.cosine:.6f}",
            format_figure(output.exact, "share"),
        )
    return table


def artifact_comparison_table(
    artifacts: Sequence[tuple[str, str, int, int | None, float | None]], medians_ms: tuple[float | None, float | None]
) -> RenderableType:
    """Two artifacts, one row each.

    Args:
        artifacts: Path, format, size in bytes, number of operators (None: a program), share of operators that the
            delegate took.
        medians_ms: p50 of each, taken by turns; None where it was not run.
    """
    numbers = ("size", "operators", "delegated", "p50")
    table = frame(("artifact", "format", *numbers), numbers)
    for (path, format_name, size_bytes, operators, delegated), median_ms in zip(artifacts, medians_ms, strict=True):
        time = standing("not run") if median_ms is None else Text(format_figure(median_ms, "ms"))
        count = "–" if operators is None else str(operators)
        row(table, path, format_name, format_size(size_bytes), count, format_figure(delegated, "share"), time)
    return table
