"""Two builds side by side: every figure of either, by how much it differs, and whether that is better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgekit.budget.baseline import not_comparable
from edgekit.budget.figures import FIGURES, FigureKind, format_change, profile_on, targets_of
from edgekit.budget.significance import slower_p_value
from edgekit.records import SCHEMA_VERSION, ArtifactReport, Manifest

Standing = Literal["better", "worse", "same", "within noise", "not comparable", "only before", "only after"]

SIGNIFICANCE = 0.01
"""Timings differ only if their order would come by chance with less than this probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFigure:
    """One figure of both builds.

    Attributes:
        name: As in budgets, or ``training_rate``, ``source_accuracy``.
        title: For people.
        target: The device of a profile's figure.
        before, after: In ``unit``; None where it is not known.
        change: ``after`` against ``before``, for people; empty where one is not known.
        standing: Of the second build.
    """

    name: str
    title: str
    target: str | None
    unit: str
    before: float | None
    after: float | None
    change: str
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedArtifact:
    """One artifact of either build, and its figures that at least one of them has."""

    id: str
    standing: Literal["both", "only before", "only after"]
    figures: tuple[ComparedFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two builds, ``before`` and ``after``."""

    schema_version: int = SCHEMA_VERSION
    before: str
    after: str
    training: tuple[ComparedFigure, ...]
    artifacts: tuple[ComparedArtifact, ...]
    notes: tuple[str, ...] = ()


def compare_builds(before: Manifest, after: Manifest) -> Comparison:
    """Put two builds side by side, in the order of the first, what only the second has at the end."""
    old = {report.id: report for report in before.artifacts}
    new = {report.id: report for report in after.artifacts}
    notes: list[str] = []
    artifacts = tuple(_artifact(name, old.get(name), new.get(name), notes) for name in dict.fromkeys((*old, *new)))
    return Comparison(
        before=before.name, after=after.name, training=_training(before, after), artifacts=artifacts, notes=tuple(notes)
    )


def _artifact(name: str, old: ArtifactReport | None, new: ArtifactReport | None, notes: list[str]) -> ComparedArtifact:
    present = [report for report in (old, new) if report is not None]
    standing: Literal["both", "only before", "only after"] = (
        "both" if len(present) == 2 else "only before" if old else "only after"
    )
    figures = []
    for kind in FIGURES.values():
        for target in targets_of(present) if kind.per_target else (None,):
            before = kind.read(old, target).value if old else None
            after = kind.read(new, target).value if new else None
            if before is not None or after is not None:
                reason = _reason(old, new, target)
                figures.append(_figure(kind, target, before, after, old, new, comparable=reason is None))
    for target in targets_of(present):
        reason = _reason(old, new, target)
        if reason is not None:
            notes.append(f"{name} on {target}: the times are not comparable with those before, {reason}")
    return ComparedArtifact(id=name, standing=standing, figures=tuple(figures))


def _reason(old: ArtifactReport | None, new: ArtifactReport | None, target: str | None) -> str | None:
    if old is None or new is None or target is None:
        return None
    return not_comparable(profile_on(old, target), profile_on(new, target))


def _figure(
    kind: FigureKind,
    target: str | None,
    before: float | None,
    after: float | None,
    old: ArtifactReport | None,
    new: ArtifactReport | None,
    *,
    comparable: bool,
) -> ComparedFigure:
    standing = _standing(before, after, lower_is_better=kind.direction == "max")
    if not comparable:
        standing = "not comparable"
    elif kind.unit == "ms" and standing in ("better", "worse") and old and new and _is_noise(old, new, target):
        standing = "within noise"
    return _compared(kind.name, kind.title, target, kind.unit, before, after, standing)


def _is_noise(old: ArtifactReport, new: ArtifactReport, target: str | None) -> bool:
    first, second = profile_on(old, target), profile_on(new, target)
    if first is None or second is None:
        return False
    before, after = first.latency_ms.samples, second.latency_ms.samples
    return min(slower_p_value(before, after), slower_p_value(after, before)) >= SIGNIFICANCE


def _standing(before: float | None, after: float | None, *, lower_is_better: bool) -> Standing:
    if before is None:
        return "only after"
    if after is None:
        return "only before"
    if before == after:
        return "same"
    return "better" if (after < before) == lower_is_better else "worse"


def _compared(
    name: str,
    title: str,
    target: str | None,
    unit: str,
    before: float | None,
    after: float | None,
    standing: Standing,
) -> ComparedFigure:
    change = "" if before is None or after is None else format_change(after - before, before, unit)
    return ComparedFigure(
        name=name,
        title=title,
        target=target,
        unit=unit,
        before=before,
        after=after,
        change=change,
        standing=standing,
    )


def training_rate(manifest: Manifest) -> float | None:
    """Return the training's throughput in samples a second, the median over its epochs; None without training."""
    epochs = manifest.training.epochs if manifest.training else ()
    rates = sorted(epoch.samples_per_second for epoch in epochs)
    return rates[len(rates) // 2] if rates else None


def _training(before: Manifest, after: Manifest) -> tuple[ComparedFigure, ...]:
    def rows() -> Iterator[ComparedFigure]:
        rates = training_rate(before), training_rate(after)
        devices = {manifest.training.device for manifest in (before, after) if manifest.training}
        standing = _standing(*rates, lower_is_better=False)
        if len(devices) > 1:
            standing = "not comparable"
        yield _compared("training_rate", "training throughput", None, "samples/s", *rates, standing)
        accuracy = before.source_accuracy, after.source_accuracy
        standing = _standing(*accuracy, lower_is_better=False)
        yield _compared("source_accuracy", "source accuracy", None, "share", *accuracy, standing)

    return tuple(row for row in rows() if row.before is not None or row.after is not None)
