"""Two builds side by side: every figure of either, by how much it differs, and whether that is better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from edgekit.budget.baseline import not_comparable, other_estimate
from edgekit.budget.figures import (
    FIGURES,
    Band,
    Figure,
    FigureKind,
    format_change,
    format_with_band,
    place_text,
    profile_on,
    targets_of,
)
from edgekit.budget.operator_changes import explain_change, sum_up
from edgekit.budget.significance import share_p_value, slower_p_value
from edgekit.records import (
    SCHEMA_VERSION,
    ArtifactReport,
    EmulatedProfile,
    FrameworkName,
    Manifest,
    MeasuredProfile,
    ProfileKind,
)
from edgekit.report.compare_facts import FRAMEWORK_TITLES, ComparedFact, build_facts, differences

Standing = Literal["better", "worse", "same", "within noise", "not comparable", "only before", "only after"]

SIGNIFICANCE = 0.01
"""Timings differ only if their order would come by chance with less than this probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFigure:
    """One figure of both builds.

    Attributes:
        name: As in budgets, or ``training_rate``, ``training_time``, ``source_accuracy``.
        title: For people.
        target: The device of a profile's figure.
        before, after: In ``unit``; None where it is not known.
        change: ``after`` against ``before``, for people; empty where one is not known, or where the two are different
            kinds of number.
        standing: Of the second build.
        before_kind, after_kind: ``measured``, ``emulated`` or ``predicted``, of a profile's figure.
        before_band, after_band: Of an estimate: where the true value is expected.
    """

    name: str
    title: str
    target: str | None
    unit: str
    before: float | None
    after: float | None
    change: str
    standing: Standing
    before_kind: ProfileKind | None = None
    after_kind: ProfileKind | None = None
    before_band: Band | None = None
    after_band: Band | None = None

    @property
    def place(self) -> str:
        """The target with the kind of its numbers: ``host (measured)``."""
        return place_text(self.target, (self.before_kind, self.after_kind))

    @property
    def texts(self) -> tuple[str, str]:
        """Both figures for people, estimates with their bands, and the kind beside each where the two differ."""
        kinds = (self.before_kind, self.after_kind)
        mixed = None not in kinds and kinds[0] != kinds[1]
        before = format_with_band(self.before, self.unit, self.before_band)
        after = format_with_band(self.after, self.unit, self.after_band)
        return (f"{before}, {kinds[0]}", f"{after}, {kinds[1]}") if mixed else (before, after)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedArtifact:
    """One artifact of either build, and its figures that at least one of them has."""

    id: str
    standing: Literal["both", "only before", "only after"]
    figures: tuple[ComparedFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two builds: ``before`` and ``after``, the first and the second that were named.

    Attributes:
        before, after: Names of the builds.
        before_framework, after_framework: Whose models they are; None where a build does not tell.
        facts: What each build is.
        training: Figures of the training and of the float models.
        artifacts: In the order of the first build, what only the second has at the end.
        notes: What a reader must know before believing a difference.
    """

    schema_version: int = SCHEMA_VERSION
    before: str
    after: str
    before_framework: FrameworkName | None = None
    after_framework: FrameworkName | None = None
    facts: tuple[ComparedFact, ...] = ()
    training: tuple[ComparedFigure, ...]
    artifacts: tuple[ComparedArtifact, ...]
    notes: tuple[str, ...] = ()

    @property
    def across_frameworks(self) -> bool:
        """Whether the models are of two frameworks: rivals then, neither the earlier one."""
        return (
            self.before_framework is not None
            and self.after_framework is not None
            and self.before_framework != self.after_framework
        )

    @property
    def heads(self) -> tuple[str, str]:
        """What the columns are called: the builds' names, with the framework or the order where that is needed."""
        names = (self.before, self.after)
        if self.across_frameworks:
            first, second = self.labels
            named = first.lower() in self.before.lower() and second.lower() in self.after.lower()
            names = names if named else (f"{self.before} ({first})", f"{self.after} ({second})")
        return names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")

    @property
    def labels(self) -> tuple[str, str]:
        """What the builds are called in a sentence: their frameworks where these differ, else as the columns."""
        if self.before_framework and self.after_framework and self.across_frameworks:
            return FRAMEWORK_TITLES[self.before_framework], FRAMEWORK_TITLES[self.after_framework]
        return self.heads

    def word(self, standing: str) -> str:
        """Say a standing for people: ``better`` than before, or which of two rivals is; and which one has it alone."""
        first, second = self.labels
        words = {"only before": f"only in {first}", "only after": f"only in {second}"}
        if self.across_frameworks:
            words |= {"better": f"{second} better", "worse": f"{first} better"}
        return words.get(standing, standing)


def compare_builds(before: Manifest, after: Manifest) -> Comparison:
    """Put two builds side by side, in the order of the first, what only the second has at the end."""
    frameworks = [manifest.source.framework if manifest.source else None for manifest in (before, after)]
    comparison = Comparison(
        before=before.name,
        after=after.name,
        before_framework=frameworks[0],
        after_framework=frameworks[1],
        training=_training(before, after),
        artifacts=(),
    )
    old = {report.id: report for report in before.artifacts}
    new = {report.id: report for report in after.artifacts}
    maker = _Figures(comparison)
    artifacts = tuple(maker.artifact(name, old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new)))
    notes = (*differences(before, after, comparison.heads), *maker.notes)
    return replace(comparison, facts=build_facts(before, after), artifacts=artifacts, notes=notes)


class _Figures:
    """Compares artifacts, and notes what cannot be compared.

    Args:
        comparison: Names the builds.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self.notes: list[str] = []

    def artifact(self, name: str, old: ArtifactReport | None, new: ArtifactReport | None) -> ComparedArtifact:
        """Compare one artifact, of which at least one build has a report."""
        present = [report for report in (old, new) if report is not None]
        standing: Literal["both", "only before", "only after"] = (
            "both" if len(present) == 2 else "only before" if old else "only after"
        )
        figures = []
        for kind in FIGURES.values():
            for target in targets_of(present) if kind.per_target else (None,):
                before = kind.read(old, target) if old else Figure(None)
                after = kind.read(new, target) if new else Figure(None)
                if before.value is not None or after.value is not None:
                    found = self._standing(kind, target, before.value, after.value, old, new)
                    figures.append(_of_artifact(kind, target, before, after, found))
        for target in targets_of(present):
            reason = _reason(old, new, target)
            if reason is not None:
                whose = self._comparison.heads[0]
                self.notes.append(f"{name} on {target}: the times are not comparable with those of {whose}, {reason}")
            else:
                self.notes += _emulated_notes(name, old, new, target, self._comparison.heads[0])
        broken = [head for head, report in zip(self._comparison.heads, (old, new), strict=True) if is_wrong(report)]
        if broken and standing == "both":
            self.notes.append(
                f"{name} does not agree with its model in {' and '.join(broken)}: being better says nothing"
            )
        return ComparedArtifact(id=name, standing=standing, figures=tuple(figures))

    def _standing(
        self,
        kind: FigureKind,
        target: str | None,
        before: float | None,
        after: float | None,
        old: ArtifactReport | None,
        new: ArtifactReport | None,
    ) -> Standing:
        found = _standing(before, after, lower_is_better=kind.direction == "max")
        if _reason(old, new, target) is not None or (kind.unit == "ms" and _other_estimate(old, new, target)):
            return "not comparable"
        if old is None or new is None or found not in ("better", "worse"):
            return found
        noisy = kind.unit == "ms" and _is_noise(old, new, target)
        # A retrained model is another draw, so its accuracy may differ by luck; that of a rival always is another draw.
        noisy = noisy or (
            self._comparison.across_frameworks and kind.name in ("accuracy", "accuracy_drop") and _is_chance(old, new)
        )
        return "within noise" if noisy else found


def is_wrong(report: ArtifactReport | None) -> bool:
    """Say whether an artifact failed its comparison with the source model: its other figures then count for nothing."""
    return report is not None and report.parity is not None and report.parity.status == "fail"


def _reason(old: ArtifactReport | None, new: ArtifactReport | None, target: str | None) -> str | None:
    if old is None or new is None or target is None:
        return None
    return not_comparable(profile_on(old, target), profile_on(new, target))


def _other_estimate(old: ArtifactReport | None, new: ArtifactReport | None, target: str | None) -> str | None:
    """Return why two emulated latencies cannot be compared though the counts can."""
    before, after = (profile_on(report, target) if report else None for report in (old, new))
    if isinstance(before, EmulatedProfile) and isinstance(after, EmulatedProfile):
        return other_estimate(before, after)
    return None


def _emulated_notes(
    name: str, old: ArtifactReport | None, new: ArtifactReport | None, target: str, whose: str
) -> Iterator[str]:
    """Say why latencies cannot be compared, and which operators and kernels stand behind a changed count."""
    before, after = (profile_on(report, target) if report else None for report in (old, new))
    if not isinstance(before, EmulatedProfile) or not isinstance(after, EmulatedProfile):
        return
    reason = other_estimate(before, after)
    if reason is not None:
        yield f"{name} on {target}: the latency is not comparable with that of {whose}, {reason}"
    if before.instructions != after.instructions:
        yield f"{name} on {target}, instructions: {sum_up(explain_change(before, after))}"


def _is_noise(old: ArtifactReport, new: ArtifactReport, target: str | None) -> bool:
    first, second = profile_on(old, target), profile_on(new, target)
    if not isinstance(first, MeasuredProfile) or not isinstance(second, MeasuredProfile):
        return False  # an estimate has no noise
    before, after = first.latency_ms.samples, second.latency_ms.samples
    return min(slower_p_value(before, after), slower_p_value(after, before)) >= SIGNIFICANCE


def _is_chance(old: ArtifactReport, new: ArtifactReport) -> bool:
    """Say whether two accuracies on so many samples may differ by chance."""
    if old.parity is None or new.parity is None or old.parity.accuracy is None or new.parity.accuracy is None:
        return False
    samples = (old.parity.samples, new.parity.samples)
    return share_p_value(old.parity.accuracy, new.parity.accuracy, samples) >= SIGNIFICANCE


def _standing(before: float | None, after: float | None, *, lower_is_better: bool) -> Standing:
    if before is None:
        return "only after"
    if after is None:
        return "only before"
    if before == after:
        return "same"
    return "better" if (after < before) == lower_is_better else "worse"


def _of_artifact(
    kind: FigureKind, target: str | None, before: Figure, after: Figure, standing: Standing
) -> ComparedFigure:
    """Put a figure of an artifact side by side. Between two kinds of number there is no difference to tell."""
    compared = _compared(kind.name, kind.title, target, kind.unit, before.value, after.value, standing)
    mixed = before.value is not None and after.value is not None and before.kind != after.kind
    return replace(
        compared,
        change="" if mixed else compared.change,
        before_kind=before.kind if before.value is not None else None,
        after_kind=after.kind if after.value is not None else None,
        before_band=before.band,
        after_band=after.band,
    )


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
    """Return the float training's throughput in samples a second, the median over its epochs; None without training.

    Epochs of quantization-aware training or clustering do more for each sample, so they count only where there are no
    others.
    """
    epochs = manifest.training.epochs if manifest.training else ()
    plain = [epoch for epoch in epochs if epoch.phase == "train"] or epochs
    rates = sorted(epoch.samples_per_second for epoch in plain)
    return rates[len(rates) // 2] if rates else None


def _training(before: Manifest, after: Manifest) -> tuple[ComparedFigure, ...]:
    def rows() -> Iterator[ComparedFigure]:
        training = [manifest.training for manifest in (before, after) if manifest.training]
        same_device = len({found.device for found in training}) <= 1
        same_length = len({len(found.epochs) for found in training}) <= 1
        rates = training_rate(before), training_rate(after)
        standing = _standing(*rates, lower_is_better=False)
        if None not in rates and not same_device:
            standing = "not comparable"
        yield _compared("training_rate", "training throughput", None, "samples/s", *rates, standing)
        times = _training_ms(before), _training_ms(after)
        standing = _standing(*times, lower_is_better=True)
        if None not in times and not (same_device and same_length):
            standing = "not comparable"
        yield _compared("training_time", "training time", None, "ms", *times, standing)
        accuracy = before.source_accuracy, after.source_accuracy
        standing = _standing(*accuracy, lower_is_better=False)
        yield _compared("source_accuracy", "source accuracy", None, "share", *accuracy, standing)

    return tuple(row for row in rows() if row.before is not None or row.after is not None)


def _training_ms(manifest: Manifest) -> float | None:
    return manifest.training.seconds * 1e3 if manifest.training else None
