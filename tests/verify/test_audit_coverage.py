from __future__ import annotations

from typing import Any

import pytest

from edgekit.records import Operator, OperatorTime
from edgekit.verify.coverage import NO_REASON, coverage
from edgekit.verify.precision_audit import audit


def chain(*kinds: str, **common: Any) -> list[Operator]:
    """``i8``, ``f32`` compute; ``q``, ``dq``, ``t`` (layout), ``n`` (computes in nothing)."""
    dtypes = {"i8": "int8", "f32": "float32", "f16": "float16"}
    others = {"q": "quantize", "dq": "dequantize", "t": "layout"}
    return [
        Operator(
            index=index,
            name=f"{kind}_{index}",
            type=kind,
            delegated=True,
            compute_dtype=dtypes.get(kind, "none"),
            kind=others.get(kind, "compute"),  # type: ignore[arg-type]
            **common,
        )
        for index, kind in enumerate(kinds)
    ]


def test_audit_is_clean_when_everything_between_quantize_and_dequantize_is_integer() -> None:
    found = audit(chain("q", "i8", "t", "i8", "dq"))
    assert found.operators == {"int8": 1.0}
    assert found.float_islands == ()
    assert found.stray_pairs == ()


def test_audit_shares_are_by_operators_macs_and_weight_bytes() -> None:
    big = chain("i8", macs=300, weight_bytes=90, weight_dtype="int8")
    small = chain("f32", macs=100, weight_bytes=10, weight_dtype="float32")
    found = audit([*big, *small, *chain("q", "n")])
    assert found.operators == {"float32": 0.5, "int8": 0.5}
    assert found.macs == {"float32": 0.25, "int8": 0.75}
    assert found.weights == {"float32": 0.1, "int8": 0.9}


def test_audit_names_float_islands_between_integer_operators_only() -> None:
    found = audit(chain("f32", "q", "i8", "dq", "f32", "f16", "q", "i8", "dq", "f32"))
    assert found.float_islands == ("f32_4", "f16_5")


def test_audit_has_no_islands_when_nothing_is_integer() -> None:
    assert audit(chain("f32", "f32", "f32")).float_islands == ()


@pytest.mark.parametrize(
    ("kinds", "stray"),
    [
        (("i8", "dq", "q", "i8"), ("dq_1",)),
        (("i8", "dq", "t", "q", "i8"), ("dq_1",)),  # moving values about changes none of them
        (("i8", "dq", "f32", "q", "i8"), ()),
        (("q", "i8", "dq"), ()),
        (("dq", "dq", "q"), ("dq_1",)),
    ],
)
def test_audit_names_dequantize_that_is_quantized_again(kinds: tuple[str, ...], stray: tuple[str, ...]) -> None:
    assert audit(chain(*kinds)).stray_pairs == stray


def test_audit_of_no_operators_is_empty() -> None:
    found = audit([])
    assert (found.operators, found.macs, found.weights) == ({}, {}, {})


def operator(name: str, *, delegated: bool, macs: int = 0, reason: str | None = None) -> Operator:
    return Operator(index=0, name=name, type="T", delegated=delegated, compute_dtype="int8", macs=macs, reason=reason)


def test_coverage_counts_operators_macs_and_time() -> None:
    operators = [
        operator("conv", delegated=True, macs=900),
        operator("norm", delegated=False, macs=100, reason="no layer norm"),
        operator("odd", delegated=False),
        operator("relu", delegated=True),
    ]
    times = [
        OperatorTime(name="conv", type="T", delegated=True, time_ms=3.0, share=0.75),
        OperatorTime(name="norm", type="T", delegated=False, time_ms=1.0, share=0.25),
    ]
    found = coverage(operators, "XNNPACK", 2, times)
    assert found is not None
    assert (found.delegate, found.partitions) == ("XNNPACK", 2)
    assert (found.operators, found.macs, found.time) == (0.5, 0.9, 0.75)
    assert found.refused == (("norm", "no layer norm"), ("odd", NO_REASON))


def test_coverage_by_macs_is_that_by_operators_when_nothing_multiplies() -> None:
    found = coverage([operator("a", delegated=True), operator("b", delegated=False)], "XNNPACK", None)
    assert found is not None
    assert (found.macs, found.time) == (0.5, None)


def test_coverage_is_unknown_when_operators_are() -> None:
    assert coverage([], "XNNPACK", None) is None
