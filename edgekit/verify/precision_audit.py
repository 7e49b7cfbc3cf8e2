"""Is it truly int8? What an artifact's operators compute in, and what breaks the integer path.

Operators carry no graph, only their order of execution, so *between* and *followed by* mean that order. In a chain it
is the graph's; across parallel branches it is an approximation, stated here and in the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from edgekit.records import Operator, PrecisionAudit


def audit(operators: Sequence[Operator]) -> PrecisionAudit:
    """Sum up operators by dtype and find the breaks.

    Args:
        operators: In execution order.

    Returns:
        Shares of computing operators, of multiply-accumulates and of weight bytes (empty where there are none);
        floating-point operators with integer ones before and after them; dequantize operators whose next operator,
        layout changes aside, quantizes again.
    """
    computing = [operator for operator in operators if operator.kind == "compute" and operator.compute_dtype != "none"]
    weighted = [operator for operator in operators if operator.weight_dtype is not None]
    return PrecisionAudit(
        operators=_shares(computing, lambda operator: operator.compute_dtype, lambda _: 1),
        macs=_shares(computing, lambda operator: operator.compute_dtype, lambda operator: operator.macs),
        weights=_shares(weighted, lambda operator: str(operator.weight_dtype), lambda operator: operator.weight_bytes),
        float_islands=_islands(computing),
        stray_pairs=_stray_pairs(operators),
    )


def _shares(
    operators: Iterable[Operator], key: Callable[[Operator], str], amount: Callable[[Operator], int]
) -> dict[str, float]:
    totals: dict[str, int] = defaultdict(int)
    for operator in operators:
        totals[key(operator)] += amount(operator)
    whole = sum(totals.values())
    return {name: value / whole for name, value in sorted(totals.items()) if value} if whole else {}


def _is_integer(operator: Operator) -> bool:
    return operator.compute_dtype.startswith(("int", "uint"))


def _islands(computing: Sequence[Operator]) -> tuple[str, ...]:
    integer = [position for position, operator in enumerate(computing) if _is_integer(operator)]
    if not integer:
        return ()
    between = computing[integer[0] : integer[-1]]
    return tuple(operator.name for operator in between if not _is_integer(operator))


def _stray_pairs(operators: Sequence[Operator]) -> tuple[str, ...]:
    moving = [operator for operator in operators if operator.kind != "layout"]
    return tuple(
        operator.name
        for operator, following in pairwise(moving)
        if operator.kind == "dequantize" and following.kind == "quantize"
    )
