"""Quantities with units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.units import (
    SIZE_UNITS,
    TIME_UNITS_MS,
    format_duration_ms,
    format_size,
    parse_duration_ms,
    parse_size_bytes,
)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)), st.sampled_from(["", " ", "  "]))
def test_size_is_number_times_unit_when_parsed(number, unit, space):
    assert parse_size_bytes(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]


@given(st.floats(0, 1e6, allow_subnormal=False), st.sampled_from(sorted(TIME_UNITS_MS)))
def test_duration_is_number_times_unit_when_parsed(number, unit):
    assert parse_duration_ms(f"{number!r} {unit}") == pytest.approx(number * TIME_UNITS_MS[unit])


@pytest.mark.parametrize("text", ["80", 80, "80 kib", "KiB", "-3 KiB", "1e KiB", None, "", "80 ms"])
def test_size_is_refused_when_unit_is_missing_or_unknown(text):
    with pytest.raises(RecipeError, match=r"expected a size with its unit.*received.*Allowed units: B, kB"):
        parse_size_bytes(text)


@given(st.text())
def test_parser_returns_or_names_the_text_when_anything_is_given(text):
    try:
        assert parse_duration_ms(text) >= 0
    except RecipeError as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (81920, "80.0 KiB"), (5 * 1024**2, "5.0 MiB"), (1024**3, "1.0 GiB")],
)
def test_size_is_printed_in_the_largest_fitting_unit(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(("duration", "text"), [(0.0123, "12.3 us"), (2.0, "2 ms"), (1500.0, "1.5 s")])
def test_duration_is_printed_in_the_largest_fitting_unit(duration, text):
    assert format_duration_ms(duration) == text
