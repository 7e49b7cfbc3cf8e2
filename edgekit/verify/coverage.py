"""Delegate coverage: how much of an artifact the accelerated backend took."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.records import DelegateCoverage, Operator, OperatorTime

NO_REASON = "the backend gives no reason"


def coverage(
    operators: Sequence[Operator],
    delegate: str,
    partitions: int | None,
    times: Sequence[OperatorTime] | None = None,
) -> DelegateCoverage | None:
    """Sum up which operators the delegate took.

    Args:
        operators: Every operator of the artifact, layout changes and quantize/dequantize included: each that the
            delegate leaves out costs a hand-over.
        delegate: Its name.
        partitions: Into how many pieces it took them, None where unknown.
        times: Measured operator times; their share of the delegate becomes ``time``.

    Returns:
        The coverage; None where the artifact's operators are not known (an unknown share is not 0 and not 1).
        Without any multiply-accumulate, ``macs`` is the share of operators.
    """
    if not operators:
        return None
    taken = [operator for operator in operators if operator.delegated]
    by_count = len(taken) / len(operators)
    macs = sum(operator.macs for operator in operators)
    whole_ms = sum(entry.time_ms for entry in times or ())
    taken_ms = sum(entry.time_ms for entry in times or () if entry.delegated)
    return DelegateCoverage(
        delegate=delegate,
        partitions=partitions,
        operators=by_count,
        macs=sum(operator.macs for operator in taken) / macs if macs else by_count,
        time=taken_ms / whole_ms if whole_ms else None,
        refused=tuple(
            (operator.name, operator.reason or NO_REASON) for operator in operators if not operator.delegated
        ),
    )
