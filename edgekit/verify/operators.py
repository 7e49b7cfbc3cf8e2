"""An artifact beside its program, operation by operation: where what it computes leaves what it should compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import TracedValue, Tracer
from edgekit.errors import DataError
from edgekit.records import SQNR_CEILING_DB
from edgekit.verify.alignment import How, Match, align, same_form

Array = NDArray[np.generic]

HALF_DB = 66.0
"""What float16 carries: 11 bits of 6.02 dB. What an operation loses above it counts as nothing."""
STEEP_DB = 6.0
"""An operation that multiplies the noise power by less than four is not where a program breaks. A guess that what is
computed from a result contradicts by so much is dropped: what is lost is not regained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorDistance:
    """One result of an artifact beside the result of the program that it stands for.

    Attributes:
        name, type: Of the result, and of the operation that gives it.
        shape: Of the result.
        beside: Name of the program's result; None: there is none of this shape, or it is a step on the way to one.
        layer: The layer of the model that it comes from; None where nothing says so.
        matched: By its ``name``, by its ``place`` between neighbours and its shape, or, where no operation there is
            called alike, by a ``guess`` among them.
        sqnr_db: With all that was lost before it; None where it holds infinity or NaN, or stands for nothing.
        max_abs_error: Greatest difference; None in the same cases.
        lost_db: How far SQNR falls below that of what it reads, nothing above 66 dB counted; None in the same cases.
        factor: What the artifact holds the result multiplied by, and was divided by here; 1 almost always.
        overflows: It holds infinity or NaN where the program has numbers.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    beside: str | None
    layer: str | None
    matched: How | None
    sqnr_db: float | None
    max_abs_error: float | None
    lost_db: float | None
    factor: float
    overflows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorComparison:
    """Every floating-point result of an artifact beside its program's.

    Attributes:
        samples: How many were run; distances are over all of them.
        operators: In the order of execution.
        steepest: The operation that overflows first, else the one that loses most, and 6 dB at least; None: none does.
    """

    samples: int
    operators: tuple[OperatorDistance, ...]
    steepest: str | None


def compare_operators(
    program: Tracer, artifact: Tracer, samples: Sequence[tuple[Sequence[Array], Sequence[Array]]]
) -> OperatorComparison:
    """Run both on the same samples and compare what their operations give.

    Args:
        program: What the artifact should compute: a program, or another artifact.
        artifact: What is looked at.
        samples: Inputs of one run each, as the one and the other take them, at least one; the first decides what
            stands for what.

    Raises:
        DataError: No samples.
    """
    if not samples:
        raise DataError("expected at least one sample to compare operations on; received none")
    sums: list[_Sums] = []
    matches: list[Match | None] = []
    results: tuple[TracedValue, ...] = ()
    sources: tuple[TracedValue, ...] = ()
    for of_program, of_artifact in samples:
        sources, results = program.trace(of_program), artifact.trace(of_artifact)
        if not matches:
            matches = align(sources, results)
            sums = [_Sums() for _ in results]
        for match, value, total in zip(matches, results, sums, strict=True):
            if match is not None:
                total.add(np.asarray(value.value, np.float64) / match.factor, sources[match.place].value)
    operators = _distances(sources, results, _without_steps(results, matches, sums), sums)
    return OperatorComparison(samples=len(samples), operators=operators, steepest=_steepest(operators))


class _Sums:
    """Signal, noise and greatest difference of one result, over all samples."""

    def __init__(self) -> None:
        self.overflows = False
        self._signal = self._noise = self._greatest = 0.0

    def add(self, found: Array, expected: Array) -> None:
        if not same_form(found, expected):  # a size that depends on values differs from sample to sample
            return
        one, other = (np.asarray(array, np.float64).ravel() for array in (found, expected))
        known = np.isfinite(other)
        self.overflows = self.overflows or not np.isfinite(one[known]).all()
        if self.overflows:
            return
        error = np.abs(one[known] - other[known])
        self._signal += float(np.square(other[known]).sum())
        self._noise += float(np.square(error).sum())
        self._greatest = max(self._greatest, float(error.max(initial=0.0)))

    @property
    def sqnr_db(self) -> float | None:
        if self.overflows:
            return None
        if self._noise == 0.0:
            return SQNR_CEILING_DB
        if self._signal == 0.0:
            return -SQNR_CEILING_DB
        decibels = 10.0 * (np.log10(self._signal) - np.log10(self._noise))
        return float(np.clip(decibels, -SQNR_CEILING_DB, SQNR_CEILING_DB))

    @property
    def max_abs_error(self) -> float | None:
        return None if self.overflows else self._greatest


def _without_steps(
    results: Sequence[TracedValue], matches: Sequence[Match | None], sums: Sequence[_Sums]
) -> list[Match | None]:
    """Drop the guesses for results that are only steps on the way to others, which come out far nearer."""
    kept = list(matches)
    behind: dict[str, float] = {}  # result -> the best SQNR of what was computed from it, steps left out
    for index in reversed(range(len(results))):
        match, own = matches[index], sums[index].sqnr_db
        best = behind.get(results[index].name, -np.inf)
        if match is not None and match.how == "guess" and own is not None and best >= own + STEEP_DB:
            kept[index] = None
        near = best if kept[index] is None else -np.inf if own is None else own
        for name in results[index].reads:
            behind[name] = max(behind.get(name, -np.inf), near)
    return kept


def _distances(
    sources: Sequence[TracedValue],
    results: Sequence[TracedValue],
    matches: Sequence[Match | None],
    sums: Sequence[_Sums],
) -> tuple[OperatorDistance, ...]:
    known: dict[str, float] = {}  # result -> its SQNR, or that of what it was computed from
    distances = []
    for value, match, total in zip(results, matches, sums, strict=True):
        before = min((known[name] for name in value.reads if name in known), default=HALF_DB)
        own = total.sqnr_db if match is not None else None
        known[value.name] = min(HALF_DB, own) if own is not None else before
        source = None if match is None else sources[match.place]
        distances.append(
            OperatorDistance(
                name=value.name,
                type=value.type,
                shape=value.value.shape,
                beside=source.name if source else None,
                layer=value.layer or (source.layer if source else None),
                matched=match.how if match else None,
                sqnr_db=own,
                max_abs_error=None if match is None else total.max_abs_error,
                lost_db=None if own is None else max(0.0, before - own),
                factor=1.0 if match is None else match.factor,
                overflows=total.overflows,
            )
        )
    return tuple(distances)


def _steepest(operators: Sequence[OperatorDistance]) -> str | None:
    overflowing = next((item.name for item in operators if item.overflows), None)
    if overflowing is not None:
        return overflowing
    worst = max(operators, key=lambda item: item.lost_db or 0.0, default=None)
    return worst.name if worst is not None and (worst.lost_db or 0.0) >= STEEP_DB else None
