"""A comparison that failed says what float16 has to do with it."""

from __future__ import annotations

from dataclasses import replace

from sample_half_precision import overflowing

from edgekit.records import HalfPrecision, OperationLoss, Parity
from edgekit.verify.half_precision import blame

OVERFLOW = overflowing("attention")
LOSS = replace(OVERFLOW, name="sub", type="sub", own_sqnr_db=12.34, starts_overflow=False, overflows=False, layer=None)
FAILED = Parity(status="fail", reason="output 'out' holds NaN", samples=4)


def _half(worst: OperationLoss, keep: tuple[str, ...]) -> HalfPrecision:
    return HalfPrecision(
        compute="declared", samples=4, outputs={}, first_overflow=None, worst=(worst,), keep_in_float32=keep
    )


def test_failure_names_the_operation_and_its_layer_when_float16_overflows() -> None:
    reason = blame(FAILED, _half(OVERFLOW, ("mul_1", "div"))).reason
    assert reason == (
        "output 'out' holds NaN; float16 overflows first in 'mul_1' (mul, in layer attention), which gives up to "
        "1.5e+09, more than 65504. Way out: keep_float32: [mul_1, div], or auto"
    )


def test_failure_names_what_costs_most_when_nothing_overflows() -> None:
    reason = blame(FAILED, _half(LOSS, ("sub",))).reason
    assert reason is not None
    assert "float16 costs most in 'sub' (sub): 12.3 dB by itself" in reason


def test_parity_stays_as_it_is_when_float16_is_not_to_blame() -> None:
    passed = replace(FAILED, status="pass", reason=None)
    assert blame(passed, _half(OVERFLOW, ("mul_1",))) is passed
    assert blame(FAILED, None) is FAILED
    assert blame(FAILED, _half(LOSS, ())) is FAILED
