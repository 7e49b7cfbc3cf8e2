"""What half precision does to an artifact, as rows and sentences for tables and for the page."""

from __future__ import annotations

from edgekit.budget.figures import format_figure
from edgekit.records import HalfPrecision, OperationLoss

HALF_PRECISION_COLUMNS = ("operation", "type", "layer", "loses itself", "lost up to here", "greatest value")
_COMPUTE = {
    "declared": "rounded to float16 where the file declares it",
    "fp16": "rounded to float16 after every operation",
}


def half_precision_row(item: OperationLoss) -> tuple[str, ...]:
    """Return one operation as text; see ``HALF_PRECISION_COLUMNS``."""
    return (
        item.name,
        item.type,
        item.layer or "–",
        "overflows" if item.starts_overflow else _db(item.own_sqnr_db),
        "infinity or NaN" if item.overflows else _db(item.sqnr_db),
        f"{item.max_abs:.3g}",
    )


def half_precision_lines(found: HalfPrecision) -> tuple[str, ...]:
    """Say what came out in whole sentences."""
    samples = f"{found.samples} sample{'' if found.samples == 1 else 's'}"
    lines = [f"Against itself in float32, on {samples}, {_COMPUTE[found.compute]}:"]
    lines += [f"output {name}: {_output(sqnr)}" for name, sqnr in found.outputs.items()]
    if found.first_overflow is not None:
        lines.append(f"The first operation that leaves the range of float16 (65504) is {found.first_overflow}.")
    if found.kept_in_float32:
        lines.append(
            "Already in float32, on the GPU or the CPU but never on the Neural Engine: "
            f"{', '.join(found.kept_in_float32)}."
        )
    if found.keep_in_float32:
        lines.append(f"To keep in float32: keep_float32: [{', '.join(found.keep_in_float32)}]")
    return tuple(lines)


def _output(sqnr_db: float | None) -> str:
    return "infinity or NaN" if sqnr_db is None else _db(sqnr_db)


def _db(value: float | None) -> str:
    return "–" if value is None else format_figure(value, "dB")
