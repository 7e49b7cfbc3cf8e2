"""Device files whose every number says where it is from: the rule, and how a source is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from edgekit.errors import nearest


def find_source(sources: Mapping[str, str], key: str) -> str | None:
    """Return where a number is from: its own entry before a pattern's; None when none names it."""
    if key in sources:
        return sources[key]
    return next((text for pattern, text in sources.items() if fnmatchcase(key, pattern)), None)


def check_sources(sources: Mapping[str, str], numbers: Sequence[str]) -> None:
    """Refuse a number without a source, and a source without a number.

    Args:
        sources: Dotted key of a number, or a pattern such as ``gpu.*`` -> where it is from.
        numbers: The dotted keys of all numbers.

    Raises:
        ValueError: The message names the keys.
    """
    unsourced = [key for key in numbers if find_source(sources, key) is None]
    if unsourced:
        raise ValueError(f"sources: no source for {', '.join(unsourced)}; every number needs one")
    idle = [pattern for pattern in sources if not any(fnmatchcase(key, pattern) for key in numbers)]
    if idle:
        raise ValueError(f"sources: {', '.join(map(repr, idle))} name no number. {nearest(idle[0], numbers)}")
