"""``edgekit check``: everything that a build must keep, in one list of verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from edgekit.budget.baseline import BaselineFindings, Tolerances, compare_with_baseline
from edgekit.budget.limits import evaluate_budgets, is_broken
from edgekit.errors import ArtifactError
from edgekit.recipe.schema import Budget
from edgekit.records import SCHEMA_VERSION, ArtifactReport, Manifest, Status, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check found.

    Attributes:
        name: Of the build.
        verdicts: Built and parity of each artifact, then budgets, then the baseline.
        passed: Whether nothing is broken.
        notes: What could not be compared, and why.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    verdicts: tuple[Verdict, ...]
    passed: bool
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The verdicts that fail the check."""
        return tuple(verdict for verdict in self.verdicts if is_broken(verdict))


def check(
    manifest: Manifest,
    budgets: Sequence[Budget] | None = None,
    baseline: Manifest | None = None,
    tolerances: Tolerances | None = None,
) -> CheckReport:
    """Hold a build against its budgets and an earlier build.

    Args:
        manifest: The build.
        budgets: The budgets; None: those of the recipe that the build was made from.
        baseline: The earlier build; None: no comparison.
        tolerances: What the comparison allows; None: the defaults.

    Raises:
        RecipeError: A budget's pattern matches no artifact.
        ArtifactError: The manifest's recipe holds budgets that cannot be read.
    """
    chosen = recipe_budgets(manifest) if budgets is None else budgets
    findings = BaselineFindings((), ())
    if baseline is not None:
        findings = compare_with_baseline(manifest, baseline, tolerances or Tolerances())
    verdicts = (
        *(verdict for report in manifest.artifacts for verdict in standing_verdicts(report)),
        *evaluate_budgets(chosen, manifest.artifacts),
        *findings.verdicts,
    )
    passed = not any(is_broken(verdict) for verdict in verdicts)
    return CheckReport(name=manifest.name, verdicts=verdicts, passed=passed, notes=findings.notes)


def recipe_budgets(manifest: Manifest) -> tuple[Budget, ...]:
    """Return the budgets of the recipe that a build was made from.

    Raises:
        ArtifactError: They cannot be read.
    """
    try:
        return TypeAdapter(tuple[Budget, ...]).validate_python(tuple(manifest.recipe.get("budgets") or ()))
    except ValidationError as error:
        raise ArtifactError(f"the manifest's recipe holds budgets that cannot be read: {error}") from error


def standing_verdicts(report: ArtifactReport) -> Iterator[Verdict]:
    """Yield what an artifact must keep without being asked: it was built, it ran, it agrees with the source model."""
    if report.error is not None or report.artifact is None:
        message = report.error.message if report.error else "it was not built"
        stage = f"{report.error.stage}: " if report.error else ""
        yield _standing("built" if report.artifact is None else "ran", report, "fail", stage + message)
    if report.parity is not None:
        ran = f"{report.parity.samples} samples agree with the source model"
        yield _standing("parity", report, report.parity.status, report.parity.reason or ran)
    elif report.artifact is not None and report.error is None:
        yield _standing("parity", report, "not run", "it was not compared with the source model")


def _standing(name: str, report: ArtifactReport, status: Status, message: str) -> Verdict:
    return Verdict(
        check=name,
        artifact=report.id,
        target=None,
        limit=None,
        value=None,
        unit="",
        direction="max",
        status=status,
        message=message,
    )
