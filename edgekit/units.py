"""Quantities as people write them (``80 KiB``, ``2 ms``, ``30 s``) and the numbers they stand for.

Grammar: ``NUMBER UNIT`` with an optional space; the unit is never optional, because ``80`` alone is
how a limit of 80 bytes comes to be read as 80 kilobytes.
"""

from __future__ import annotations

import re

from edgekit.errors import RecipeError

SIZE_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
}
COUNT_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}
TIME_UNITS_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3}

_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ]+)\s*")


def _parse(text: object, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    allowed = ", ".join(units)
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match.group(2) not in units:
        raise RecipeError(
            f"expected a {what} with its unit, such as '{example}'; received {text!r}. Allowed units: {allowed}."
        )
    return float(match.group(1)) * units[match.group(2)]


def parse_size_bytes(text: object) -> int:
    """Parse a size.

    Args:
        text: Such as ``80 KiB`` (1024-based) or ``1.5 MB`` (1000-based).

    Returns:
        The size in bytes, rounded down.

    Raises:
        RecipeError: No unit, an unknown unit, or not a quantity.

    Example:
        >>> parse_size_bytes("80 KiB")
        81920
    """
    return int(_parse(text, SIZE_UNITS, "size", "80 KiB"))


def parse_duration_ms(text: object) -> float:
    """Parse a duration.

    Args:
        text: Such as ``2 ms``, ``750 us``, ``1.5 s``.

    Returns:
        The duration in milliseconds.

    Raises:
        RecipeError: No unit, an unknown unit, or not a quantity.

    Example:
        >>> parse_duration_ms("1.5 s")
        1500.0
    """
    return _parse(text, TIME_UNITS_MS, "duration", "2 ms")


def parse_count(text: object) -> int:
    """Parse a count with a power of a thousand.

    Args:
        text: Such as ``180 M`` or ``1.5 G``.

    Returns:
        The count, rounded to the nearest whole number.

    Raises:
        RecipeError: No unit, an unknown unit, or not a quantity.

    Example:
        >>> parse_count("1.5 M")
        1500000
    """
    return round(_parse(text, COUNT_UNITS, "count", "180 M"))


def format_size(size_bytes: float) -> str:
    """Print a size with three significant digits.

    Example:
        >>> format_size(81920)
        '80.0 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"


def format_count(count: float) -> str:
    """Print a count with every digit: exact counts are compared digit by digit.

    Example:
        >>> format_count(181200345)
        '181,200,345'
    """
    return f"{count:,.0f}"


def format_duration_ms(duration_ms: float) -> str:
    """Print a duration with three significant digits.

    Example:
        >>> format_duration_ms(0.0123)
        '12.3 us'
    """
    if abs(duration_ms) < 0.9995:  # rounds to less than 1000 us: ".3g" would print 1e+03
        return f"{duration_ms * 1e3:.3g} us"
    if abs(duration_ms) < 999.5:
        return f"{duration_ms:.3g} ms"
    return f"{duration_ms / 1e3:.3g} s"
