"""Which result of a program each result of an artifact stands for.

Converters keep most names, fuse some operations, split others and drop those that change nothing. In the order of what
is trusted:

1. A result of the same origin and shape. Where the converter fused what follows into it (a bias, a folded
   normalisation), it stands for the end of that chain: for the closest of the results behind the named one that the
   artifact does not name and that a single reader leads to.
2. Else a result of the same shape between those that its neighbours stand for: one of a like-named operation where
   there is one, and of several the closest. What is wrong stays wrong that way: it is as close to nothing. Where no
   operation is like-named that is a guess: the result may as well be a step on the way to another (a factor of a hard
   swish), and stand for nothing.

A converter may also carry a result times a constant: coremltools divides the scales of a quantized sum by one of them,
and multiplies the scale behind the sum. Such a result is compared divided by its factor, and the factor is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import TracedValue
from edgekit.verify.parity import sqnr_db

Array = NDArray[np.generic]
How = Literal["name", "place", "guess"]
_FAR_DB, _NEAR_DB, _NEARER_DB = 20.0, 12.0, 10.0
"""A result further off than the first is held against its multiples; one that comes as near as the second, and by the
third nearer, is one. Deep in an int8 network results differ by flipped roundings, at 15 to 25 dB."""
_ENOUGH = 16
"""Values that a factor is believed from: any one value is a multiple of any other."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a result of the artifact stands for.

    Attributes:
        place: Of the program's result.
        how: It was found.
        factor: What the artifact holds it multiplied by.
    """

    place: int
    how: How
    factor: float = 1.0


def align(program: Sequence[TracedValue], artifact: Sequence[TracedValue]) -> list[Match | None]:
    """Match the results of one run with those of another, on the same inputs.

    Args:
        program: Results in the order of execution.
        artifact: Those that are to be matched.

    Returns:
        One match for each result of the artifact; None where it stands for no result of the program.
    """
    return _Alignment(program, artifact).result()


def same_form(one: Array, other: Array) -> bool:
    """Whether two shapes are the same but for dimensions of size 1."""
    return _form(one) == _form(other)


def _form(array: Array) -> tuple[int, ...]:
    return tuple(size for size in array.shape if size != 1)


def closeness(found: Array, expected: Array) -> tuple[float, float]:
    """Compare two arrays of one form.

    Returns:
        SQNR in dB (``-inf`` where a value is no number on one side only), and the factor that ``found`` was divided by
        for it: 1, unless that is far off and one factor for all values brings it near.
    """
    one, other = (np.asarray(array, np.float64).ravel() for array in (found, expected))
    known = np.isfinite(other)
    one, other = one[known], other[known]
    if not np.isfinite(one).all():
        return -np.inf, 1.0
    plain = sqnr_db(one, other)
    factor = float(one @ other) / float(other @ other) if other.any() else 0.0
    if plain >= _FAR_DB or factor <= 0.0 or other.size < _ENOUGH:
        return plain, 1.0
    scaled = sqnr_db(one / factor, other)
    return (scaled, factor) if scaled >= max(_NEAR_DB, plain + _NEARER_DB) else (plain, 1.0)


def _alike(one: str, other: str) -> bool:
    """Whether one operation's name begins with the other's: ``dequantize`` and ``dequantize_per_tensor``."""
    return one.startswith(other) or other.startswith(one)


class _Alignment:
    def __init__(self, program: Sequence[TracedValue], artifact: Sequence[TracedValue]) -> None:
        self._program, self._artifact = program, artifact
        self._places = {value.origin: place for place, value in reversed(list(enumerate(program)))}
        self._kept = {value.origin for value in artifact}
        self._readers: dict[str, list[int]] = {}
        for place, value in enumerate(program):
            for name in value.reads:
                self._readers.setdefault(name, []).append(place)

    def result(self) -> list[Match | None]:
        found = [self._by_name(value) for value in self._artifact]
        by_name = {value.name: match.place for value, match in zip(self._artifact, found, strict=True) if match}
        after = len(self._program) - 1
        for index in reversed(range(len(found))):
            match = found[index]
            if match is None:
                found[index] = self._by_place(self._artifact[index], by_name, after)
            elif self._artifact[index].reads:
                after = match.place
        return found

    def _by_name(self, value: TracedValue) -> Match | None:
        place = self._places.get(value.origin)
        if place is None or not same_form(value.value, self._program[place].value):
            return None
        return self._closest(value, list(self._fused_into(place)), "name")

    def _fused_into(self, place: int) -> Iterator[int]:
        """Yield a place and those behind it that the artifact may hold under its name."""
        yield place
        start = self._program[place].value
        while len(readers := self._readers.get(self._program[place].name, [])) == 1:
            place = readers[0]
            following = self._program[place]
            if following.origin in self._kept or not same_form(following.value, start):
                return
            yield place

    def _by_place(self, value: TracedValue, by_name: dict[str, int], after: int) -> Match | None:
        before = max((by_name[name] for name in value.reads if name in by_name), default=0)
        places = range(before, max(before, after) + 1)
        candidates = [place for place in places if same_form(value.value, self._program[place].value)]
        alike = [place for place in candidates if _alike(value.type, self._program[place].type)]
        if not candidates:
            return None
        return self._closest(value, alike, "place") if alike else self._closest(value, candidates, "guess")

    def _closest(self, value: TracedValue, places: Sequence[int], how: How) -> Match:
        """Return the closest; one that needs no factor before one that does; of equals (a reshape) the last."""
        found = {place: closeness(value.value, self._program[place].value) for place in places}
        best = max(
            places, key=lambda place: (found[place][1] == 1.0 and found[place][0] >= _FAR_DB, found[place][0], place)
        )
        return Match(best, how, found[best][1])
