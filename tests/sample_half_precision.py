"""Operations that lose by half precision, as the evaluator would record them."""

from __future__ import annotations

from edgekit.records import OperationLoss


def overflowing(layer: str) -> OperationLoss:
    """The product in a layer that gives more than float16 holds, the first one of its artifact."""
    return OperationLoss(
        name="mul_1",
        type="mul",
        sqnr_db=None,
        own_sqnr_db=None,
        max_abs=1.5e9,
        overflows=True,
        starts_overflow=True,
        layer=layer,
    )
