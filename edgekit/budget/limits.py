"""Budgets of a recipe: which artifacts they mean, whether they can be judged at all, and whether they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from edgekit.budget.figures import (
    FIGURES,
    Figure,
    FigureKind,
    format_change,
    format_figure,
    format_with_band,
    place_text,
)
from edgekit.errors import RecipeError, nearest
from edgekit.recipe.schema import Budget
from edgekit.records import ArtifactReport, Status, Verdict

ROUNDING = 1e-9
"""Relative slack of a comparison: 0.98 - 0.97 is 0.010000000000000009, and a drop of 0.01 was allowed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a budget: a figure, the device it is about where it is about one, and the value to keep."""

    check: str
    target: str | None
    value: float


def limits_of(budget: Budget) -> Iterator[Limit]:
    """Yield every limit that a budget sets, in the order of the schema."""
    for name in FIGURES:
        given = getattr(budget, name, None)
        if isinstance(given, dict):
            yield from (Limit(name, target, float(value)) for target, value in given.items())
        elif given is not None:
            yield Limit(name, None, float(given))


def match_artifacts(pattern: str, ids: Sequence[str], place: str = "budgets") -> tuple[str, ...]:
    """Find the artifacts that a budget means.

    Args:
        pattern: An id (``tflite/int8``, ``executorch/int8@coreml``) or a pattern over ids (``*/int8``, ``coreml/*``).
        ids: Of the artifacts of the build, in order.
        place: Where the pattern was written; the error names it.

    Raises:
        RecipeError: The pattern matches nothing.

    Example:
        >>> match_artifacts("*/int8", ["tflite/fp32", "tflite/int8", "coreml/int8"])
        ('tflite/int8', 'coreml/int8')
    """
    matched = tuple(name for name in ids if name == pattern or fnmatchcase(name, pattern))
    if not matched:
        raise RecipeError(f"{place}: the artifact pattern {pattern!r} matches no artifact. {nearest(pattern, ids)}")
    return matched


def check_budgets_can_be_judged(budgets: Sequence[Budget], ids: Sequence[str], targets: Sequence[str]) -> None:
    """Refuse, before any work, a budget that could never be kept because nothing will measure its figure.

    Args:
        budgets: Of the recipe.
        ids: Of the artifacts that the recipe exports.
        targets: On which the recipe profiles.

    Raises:
        RecipeError: A pattern matches no artifact, a budget sets no limit, or a limit is about a target that is not
            profiled.
    """
    for index, budget in enumerate(budgets):
        place = f"budgets.{index}"
        match_artifacts(budget.artifact, ids, f"{place}.artifact")
        limits = list(limits_of(budget))
        if not limits:
            names = ", ".join(name for name in FIGURES if name in Budget.model_fields)
            raise RecipeError(f"{place}: expected at least one limit; this budget sets none. Allowed: {names}.")
        for limit in limits:
            if limit.target is not None and limit.target not in targets:
                hint = nearest(limit.target, targets) if targets else "profile.targets is empty."
                raise RecipeError(
                    f"{place}.{limit.check}: nothing is profiled on {limit.target!r}, so this limit can never be kept. "
                    f"Add it to profile.targets, or drop the limit. {hint}"
                )


def evaluate_budgets(budgets: Iterable[Budget], reports: Sequence[ArtifactReport]) -> list[Verdict]:
    """Hold artifacts against budgets.

    A figure that was not measured gives ``not run``, which counts as broken.

    Args:
        budgets: In the recipe's order.
        reports: Of all artifacts of a build.

    Returns:
        One verdict a limit and artifact, in the order of budgets, then artifacts, then limits.

    Raises:
        RecipeError: A pattern matches no artifact.
    """
    by_id = {report.id: report for report in reports}
    return [
        judge(by_id[name], limit)
        for index, budget in enumerate(budgets)
        for name in match_artifacts(budget.artifact, list(by_id), f"budgets.{index}.artifact")
        for limit in limits_of(budget)
    ]


def judge(report: ArtifactReport, limit: Limit) -> Verdict:
    """Hold one artifact against one limit."""
    kind = FIGURES[limit.check]
    figure = kind.read(report, limit.target)
    where = f" on {place_text(limit.target, [figure.kind])}" if limit.target else ""
    status, message = _outcome(f"{kind.title}{where}", figure, limit.value, kind)
    return Verdict(
        check=limit.check,
        artifact=report.id,
        target=limit.target,
        limit=limit.value,
        value=figure.value,
        unit=kind.unit,
        direction=kind.direction,
        status=status,
        message=message,
        kind=figure.kind,
        band=figure.band,
    )


def keeps(value: float, limit: float, direction: Literal["max", "min"]) -> bool:
    """Tell whether a value keeps a limit; NaN keeps none."""
    slack = ROUNDING * max(abs(limit), abs(value))
    return value <= limit + slack if direction == "max" else value >= limit - slack


def _outcome(what: str, figure: Figure, limit: float, kind: FigureKind) -> tuple[Status, str]:
    bound = f"the limit of {'at most' if kind.direction == 'max' else 'at least'} {format_figure(limit, kind.unit)}"
    if figure.value is None:
        return "not run", f"{what} was not measured ({figure.missing}), so {bound} is not kept"
    received = f"{what} is {format_with_band(figure.value, kind.unit, figure.band)}"
    change = format_change(figure.value - limit, limit, kind.unit)
    doubt = _doubt(figure, limit)
    if keeps(figure.value, limit, kind.direction):
        return "pass", f"{received}, within {bound}: {change}{doubt}"
    return "fail", f"{received}, which breaks {bound}: {change}{doubt}"


def _doubt(figure: Figure, limit: float) -> str:
    """Say what an estimate's band rests on, and whether the device itself might be on the other side of the limit."""
    if figure.band is None:
        return ""
    low, high = figure.band
    inside = low <= limit and (high is None or limit <= high)
    undecided = "; the limit lies inside the band, so the device itself may be on either side of it" if inside else ""
    return f" (band: {figure.basis}{undecided})"


def is_broken(verdict: Verdict) -> bool:
    """Tell whether a verdict fails a check.

    ``not run`` is broken for budgets and baselines. Parity that could not be run here is shown as such and does not
    fail a build by itself: a budget on ``sqnr_db`` or ``accuracy`` makes it count.
    """
    return verdict.status == "fail" or (verdict.status == "not run" and verdict.check != "parity")
