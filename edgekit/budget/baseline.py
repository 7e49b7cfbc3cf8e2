"""A build against an earlier one: what got worse, by more than is allowed and by more than noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from edgekit.budget.figures import (
    FIGURES,
    FigureKind,
    format_change,
    format_with_band,
    place_text,
    profile_on,
    targets_of,
)
from edgekit.budget.limits import keeps
from edgekit.budget.operator_changes import explain_change, sum_up
from edgekit.budget.significance import slower_p_value, smallest_p_value
from edgekit.recipe.schema import Section
from edgekit.records import (
    ArtifactReport,
    EmulatedProfile,
    Manifest,
    MeasuredProfile,
    PredictedProfile,
    Profile,
    Status,
    Verdict,
)

VS_BASELINE = "_vs_baseline"
"""Ends the check's name of every verdict against a baseline: ``size_vs_baseline``."""

IDENTITY = ("cpu", "architecture", "cores", "governor", "virtual")
"""What makes a machine the same one for timings; load, kernel and free memory change from hour to hour."""

ESTIMATE_IDENTITY = ("core_table", "clock", "caches", "memory")
"""What makes two estimates from counts comparable: the same model of the same device."""


class Tolerances(Section):
    """By how much a figure may be worse than in the baseline before it counts as a regression."""

    size_growth: float = Field(default=0.01, ge=0)
    """Share of the baseline's size (0.01: one per cent)."""
    latency_factor: float = Field(default=1.1, ge=1)
    """The p50 latency may be so many times the baseline's."""
    latency_significance: float = Field(default=0.01, gt=0, lt=1)
    """A slower p50 counts only if the samples would be so slow by chance with less than this probability
    (Mann–Whitney U, one-sided)."""
    emulated_latency_growth: float = Field(default=0.01, ge=0)
    """Share by which an emulated or predicted latency may grow: it has no noise."""
    instructions_growth: float = Field(default=0.0, ge=0)
    """Share by which the instructions of an inference may grow: counts are exact, so none by default."""
    memory_factor: float = Field(default=1.25, ge=1)
    """The peak memory may be so many times the baseline's."""
    accuracy_drop: float = Field(default=0.005, ge=0)
    """As a share (0.005: half a point)."""
    delegated_drop: float = Field(default=0.0, ge=0, le=1)
    """By how much the share of delegated operators may fall."""
    new_float_islands: int = Field(default=0, ge=0)
    """Float operators between integer ones that the baseline did not have."""


@dataclass(frozen=True, slots=True)
class BaselineFindings:
    """The verdicts against a baseline, and what could not be compared and why."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def compare_with_baseline(current: Manifest, baseline: Manifest, tolerances: Tolerances) -> BaselineFindings:
    """Hold a build against an earlier one.

    An artifact or a figure that the baseline has and this build has not is a regression. Times and memory are
    compared only where both were profiled on the same machine with the same number of threads.

    Args:
        current: The build in question.
        baseline: The earlier build.
        tolerances: What is allowed.

    Returns:
        One verdict a figure that the baseline has, in the baseline's order, and notes.
    """
    now = {report.id: report for report in current.artifacts}
    verdicts: list[Verdict] = []
    notes: list[str] = []
    for before in baseline.artifacts:
        if before.artifact is None:
            notes.append(f"{before.id} failed in the baseline, so there is nothing to compare it with")
        elif before.id not in now:
            verdicts.append(_missing(before.id))
        elif now[before.id].artifact is not None:  # otherwise its own failure is already a verdict
            verdicts += _artifact_verdicts(before, now[before.id], tolerances, notes)
    known = {report.id for report in baseline.artifacts}
    notes += [f"{name} is new: the baseline has none" for name in now if name not in known]
    return BaselineFindings(tuple(verdicts), tuple(notes))


def _missing(name: str) -> Verdict:
    return Verdict(
        check=f"artifact{VS_BASELINE}",
        artifact=name,
        target=None,
        limit=None,
        value=None,
        unit="",
        direction="max",
        status="fail",
        message="the baseline has this artifact, this build has not",
    )


def _artifact_verdicts(
    before: ArtifactReport, now: ArtifactReport, tolerances: Tolerances, notes: list[str]
) -> Iterator[Verdict]:
    allowed = {
        "size": lambda value: value * (1 + tolerances.size_growth),
        "accuracy": lambda value: value - tolerances.accuracy_drop,
        "delegated": lambda value: value - tolerances.delegated_drop,
        "float_islands": lambda value: value + tolerances.new_float_islands,
    }
    for name, limit in allowed.items():
        value = FIGURES[name].read(before, None).value
        if value is not None:
            yield _judge(FIGURES[name], before, now, None, value, limit(value))
    for target in targets_of([before]):
        reason = not_comparable(profile_on(before, target), profile_on(now, target))
        if reason is not None:
            notes.append(f"{now.id} on {target}: not compared with the baseline, {reason}")
            continue
        yield from _profile_verdicts(before, now, target, tolerances, notes)
        memory = FIGURES["peak_memory"].read(before, target).value
        if memory is not None:
            yield _judge(FIGURES["peak_memory"], before, now, target, memory, memory * tolerances.memory_factor)


def _profile_verdicts(
    before: ArtifactReport, now: ArtifactReport, target: str, tolerances: Tolerances, notes: list[str]
) -> Iterator[Verdict]:
    """Judge times and counts: a clock's with its noise, an emulated or predicted target's without."""
    old, new = profile_on(before, target), profile_on(now, target)
    if old is None or isinstance(old, MeasuredProfile):
        yield _judge_latency(before, now, target, tolerances)
        return
    if isinstance(old, EmulatedProfile):
        yield _judge_instructions(before, now, target, tolerances)
    if old.latency_ms is None:
        return
    reason: str | None = None
    if isinstance(old, EmulatedProfile) and isinstance(new, EmulatedProfile):
        reason = other_estimate(old, new)
    if reason is not None:
        notes.append(f"{now.id} on {target}: latency not compared with the baseline, {reason}; its counts are compared")
        return
    kind, value = FIGURES["latency_p50"], old.latency_ms.p50
    yield _judge(kind, before, now, target, value, value * (1 + tolerances.emulated_latency_growth))


def other_estimate(before: EmulatedProfile, now: EmulatedProfile) -> str | None:
    """Return why two estimates cannot be compared though their counts can, None where they can."""
    if before.model != now.model:
        return f"which was estimated by the model {before.model!r} and this by {now.model!r}"
    differing = [key for key in ESTIMATE_IDENTITY if before.machine.get(key) != now.machine.get(key)]
    if differing:
        return f"which was estimated with other figures of the device ({_differences(before, now, differing)})"
    anchors = [profile.latency_ms.anchors if profile.latency_ms else () for profile in (before, now)]
    if anchors[0] != anchors[1]:
        told = " against ".join(", ".join(found) or "none" for found in anchors)
        return f"which rests on other measurements of the device ({told})"
    return None


def _judge_instructions(before: ArtifactReport, now: ArtifactReport, target: str, tolerances: Tolerances) -> Verdict:
    """Judge an exact count, and say which operators and kernels stand behind a change."""
    kind = FIGURES["instructions"]
    baseline = kind.read(before, target).value or 0.0
    verdict = _judge(kind, before, now, target, baseline, baseline * (1 + tolerances.instructions_growth))
    old, new = profile_on(before, target), profile_on(now, target)
    if verdict.value == baseline or not isinstance(old, EmulatedProfile) or not isinstance(new, EmulatedProfile):
        return verdict
    lines = explain_change(old, new)
    message = f"{verdict.message}. Changed: {sum_up(lines)}" if lines else verdict.message
    return replace(verdict, message=message, details=lines)


def not_comparable(before: Profile | None, now: Profile | None) -> str | None:
    """Return why two profiles on one target cannot be compared, None where they can or where one is missing."""
    if before is None or now is None:
        return None
    if before.kind != now.kind:
        return f"which is {before.kind} and this {now.kind}: two kinds of number that never mix"
    if isinstance(before, EmulatedProfile) and isinstance(now, EmulatedProfile):
        if before.machine.get("core") != now.machine.get("core"):
            return f"which was taken on another core ({_differences(before, now, ['core'])})"
        return None
    if isinstance(before, PredictedProfile) and isinstance(now, PredictedProfile):
        return _other_prediction(before, now)
    if before.config.num_threads != now.config.num_threads:
        return f"which ran on {before.config.num_threads} threads and this on {now.config.num_threads}"
    differing = [key for key in IDENTITY if before.machine.get(key) != now.machine.get(key)]
    if differing:
        return f"which was taken on another machine ({_differences(before, now, differing)})"
    return None


def _other_prediction(before: PredictedProfile, now: PredictedProfile) -> str | None:
    """Return why two predictions cannot be compared, None where they can."""
    if before.machine.get("figures") != now.machine.get("figures"):
        return f"which was predicted with other figures of the chip ({_differences(before, now, ['figures'])})"
    if before.compute_units != now.compute_units:
        return f"which was predicted for the units {before.compute_units} and this for {now.compute_units}"
    return None


def _differences(before: Profile, now: Profile, keys: Iterable[str]) -> str:
    return "; ".join(f"{key}: {before.machine.get(key, '–')} → {now.machine.get(key, '–')}" for key in keys)


def _judge(
    kind: FigureKind, before: ArtifactReport, now: ArtifactReport, target: str | None, baseline: float, limit: float
) -> Verdict:
    figure, earlier = kind.read(now, target), kind.read(before, target)
    label = earlier.kind or figure.kind
    where = f" on {place_text(target, [label])}" if target else ""
    was = format_with_band(baseline, kind.unit, earlier.band)
    if figure.value is None:
        status: Status = "not run"
        message = f"{kind.title}{where} was {was} and is not known: {figure.missing}"
    else:
        status = "pass" if keeps(figure.value, limit, kind.direction) else "fail"
        change = format_change(figure.value - baseline, baseline, kind.unit)
        message = (
            f"{kind.title}{where} went from {was} to {format_with_band(figure.value, kind.unit, figure.band)}: {change}"
        )
    return Verdict(
        check=kind.name + VS_BASELINE,
        artifact=before.id,
        target=target,
        limit=limit,
        value=figure.value,
        unit=kind.unit,
        direction=kind.direction,
        status=status,
        message=message,
        baseline=baseline,
        kind=label,
        band=figure.band,
    )


def _judge_latency(before: ArtifactReport, now: ArtifactReport, target: str, tolerances: Tolerances) -> Verdict:
    """Judge the p50: worse only if it is above the factor *and* the samples differ by more than chance."""
    kind = FIGURES["latency_p50"]
    old, new = profile_on(before, target), profile_on(now, target)
    baseline = kind.read(before, target).value or 0.0
    verdict = _judge(kind, before, now, target, baseline, baseline * tolerances.latency_factor)
    if verdict.status != "fail" or not isinstance(old, MeasuredProfile) or not isinstance(new, MeasuredProfile):
        return verdict
    chance, told = _chance(old, new, tolerances.latency_significance)
    status: Literal["pass", "fail"] = "fail" if chance < tolerances.latency_significance else "pass"
    return replace(verdict, status=status, message=f"{verdict.message}; {told}")


def _chance(old: MeasuredProfile, new: MeasuredProfile, significance: float) -> tuple[float, str]:
    """Return the probability that the new samples are slower by chance only, and the words for it."""
    before, after = old.latency_ms.samples, new.latency_ms.samples
    if smallest_p_value(before, after) >= significance:
        # Too few samples for any test. A gate that passes because it knows too little would be the wrong way round.
        return 0.0, f"too few samples ({len(before)} and {len(after)}) to tell it from noise, so the factor decides"
    chance = slower_p_value(before, after)
    told = "more than noise" if chance < significance else "within noise"
    return chance, f"{told} (Mann–Whitney p = {chance:.2g})"
