"""Plan a build: what will be made, from what, and a refusal of whatever cannot work, before any work."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgekit.budget.limits import check_budgets_can_be_judged, limits_of, match_artifacts
from edgekit.contracts import BackendSpec, FormatSpec, FrameworkSpec
from edgekit.data.fingerprint import locate_module
from edgekit.errors import MissingToolError, ModelError, RecipeError, UnsupportedError
from edgekit.formats import format_spec, require_cell
from edgekit.frameworks import framework_spec, framework_specs
from edgekit.recipe.pruning import check_prune_rule
from edgekit.recipe.schema import ExportRule, Recipe
from edgekit.records import FormatName, FrameworkName, Precision, artifact_id
from edgekit.targets import Device, find_device

CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")
"""Precisions whose activation scales come from data."""

NEEDS_NO_RUN = ("size", "delegated")
"""Budget figures that are known from the file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactPlan:
    """One artifact to make.

    Attributes:
        program: Precision of the program that it is lowered from.
        not_here: Why this machine cannot run it; None: it can.
    """

    id: str
    format: FormatName
    precision: Precision
    program: Precision
    backend: str | None
    minimum_deployment_target: str | None
    compression: str | None
    dynamic_batch: bool
    timeout_s: float
    not_here: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A build that can work.

    Attributes:
        framework: Whose model it is.
        artifacts: In the recipe's order.
        programs: ``(precision, dynamic batch)`` of each program that they need.
        devices: To profile on.
        warnings: What the user should know before the work.
    """

    recipe: Recipe
    framework: FrameworkName
    artifacts: tuple[ArtifactPlan, ...]
    programs: tuple[tuple[Precision, bool], ...]
    devices: tuple[Device, ...]
    warnings: tuple[str, ...] = ()


def make_plan(recipe: Recipe) -> Plan:
    """Check a recipe against what frameworks, formats, targets and this machine can do.

    Raises:
        UnsupportedError: A precision that a format cannot hold, a batch that it cannot free, a device it cannot run on.
        RecipeError: Contradictions within the recipe (a budget on a figure nobody measures, for one).
        MissingToolError: A package that a step needs is not installed.
        TargetError: An unknown or badly described device.
    """
    framework = framework_spec(recipe.framework or find_framework(recipe.model.source, recipe.model.builder))
    _require_installed(framework.distributions, framework.title, framework.extra)
    artifacts = tuple(_plan_artifacts(recipe))
    _refuse_twice(artifacts)
    _check_compression(recipe, artifacts)
    devices = tuple(find_device(name) for name in recipe.profile.targets)
    _check_budgets(recipe, artifacts)
    programs = dict.fromkeys((artifact.program, artifact.dynamic_batch) for artifact in artifacts)
    return Plan(
        recipe=recipe,
        framework=framework.name,
        artifacts=artifacts,
        programs=tuple(programs),
        devices=devices,
        warnings=tuple(_warnings(recipe, artifacts)),
    )


def find_framework(source: str, builder: str | None = None) -> FrameworkName:
    """Find out whose model a source is, without importing it: by suffix, or by what its module imports.

    Raises:
        ModelError: Neither tells; the message says how to state it.
    """
    entry = builder or source
    if ":" not in entry or Path(entry).exists():
        return _framework_by_suffix(entry)
    file = locate_module(entry.partition(":")[0])
    if file is None:
        raise ModelError(
            f"model: expected 'package.module:callable' or a file; there is no module {entry.partition(':')[0]!r} "
            f"in the working folder ({Path.cwd()}) or installed, and no such file. Run from the folder that holds it."
        )
    try:
        imported = _imported_names(ast.parse(file.read_bytes(), filename=file.name))
    except (SyntaxError, ValueError) as error:
        raise ModelError(f"model: {file} is not valid Python: {error}. Correct it and run again.") from error
    if imported & {"tensorflow", "keras", "tf_keras"}:
        return "keras"
    if imported & {"torch", "torchvision", "timm", "transformers"}:
        return "pytorch"
    raise ModelError(f"model: {entry!r} imports neither torch nor keras; state `framework: pytorch` in the recipe.")


def _framework_by_suffix(source: str) -> FrameworkName:
    for spec in framework_specs().values():
        if source.endswith(spec.suffixes):
            return spec.name
    known = ", ".join(suffix for spec in framework_specs().values() for suffix in spec.suffixes)
    raise ModelError(f"model: expected 'package.module:callable' or a file ending in {known}; received {source!r}.")


def _imported_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _plan_artifacts(recipe: Recipe) -> Iterable[ArtifactPlan]:
    for place, rule in enumerate(recipe.export):
        spec = format_spec(rule.format)
        _require_installed(spec.distributions, spec.title, spec.extra)
        _check_options(spec, rule, f"export.{place}")
        for precision in rule.precision:
            backend, program = require_cell(spec, precision, rule.backend)
            if rule.batch == "dynamic" and spec.dynamic_batch is not None:
                refusal = spec.dynamic_batch
                raise UnsupportedError(
                    f"export.{place}: a dynamic batch in {spec.title}", reason=refusal.reason, instead=refusal.instead
                )
            yield _artifact_plan(rule, spec, backend, precision, program)


def _artifact_plan(
    rule: ExportRule, spec: FormatSpec, backend: BackendSpec, precision: Precision, program: Precision
) -> ArtifactPlan:
    name = None if backend is spec.backends[0] else backend.name
    return ArtifactPlan(
        id=artifact_id(spec.name, precision, name),
        format=spec.name,
        precision=precision,
        program=program,
        backend=backend.name,
        minimum_deployment_target=rule.minimum_deployment_target,
        compression=rule.compression,
        dynamic_batch=rule.batch == "dynamic",
        timeout_s=rule.timeout / 1e3,
        not_here=backend.not_here,
    )


def _check_options(spec: FormatSpec, rule: ExportRule, place: str) -> None:
    for option in ("minimum_deployment_target", "compression"):
        if getattr(rule, option) is not None and option not in spec.options:
            raise RecipeError(f"{place}: {option!r} means nothing to {spec.title}; leave it out of this export.")


def _refuse_twice(artifacts: tuple[ArtifactPlan, ...]) -> None:
    ids = [artifact.id for artifact in artifacts]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise RecipeError(f"export: expected each artifact once; received twice: {', '.join(twice)}.")


def _check_compression(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...]) -> None:
    wanted = {artifact.precision for artifact in artifacts} | {artifact.program for artifact in artifacts}
    for place, step in enumerate(recipe.compress):
        rule = step.quantize
        if rule is not None and rule.precision not in wanted:
            raise RecipeError(
                f"compress.{place}.quantize: no artifact is exported at {rule.precision}; "
                f"exported: {', '.join(sorted({artifact.precision for artifact in artifacts}))}."
            )
        if rule is not None and rule.mode == "qat" and rule.precision != "int8":
            raise UnsupportedError(
                f"compress.{place}.quantize: quantization-aware training to {rule.precision}",
                reason="only int8 activations and weights have fake-quantize operations to train through",
                instead="mode: ptq, or precision: int8",
            )
        if step.prune is not None:
            check_prune_rule(step.prune, f"compress.{place}.prune")
        if recipe.train is None and (step.prune or step.distil or (rule is not None and rule.mode == "qat")):
            raise RecipeError(f"compress.{place}: this step happens during training, and the recipe has no `train:`.")
    _check_data(recipe, artifacts)


def _check_data(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...]) -> None:
    if recipe.data is not None:
        return
    if recipe.train is not None:
        raise RecipeError("train: training needs `data:`.")
    for artifact in artifacts:
        if artifact.precision in CALIBRATED:
            raise RecipeError(
                f"{artifact.id}: activation scales come from real samples, and none are given; "
                "add `data:` to the recipe, or --calibration-data to `edgekit convert`."
            )


def _check_budgets(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...]) -> None:
    by_id = {artifact.id: artifact for artifact in artifacts}
    check_budgets_can_be_judged(recipe.budgets, list(by_id), recipe.profile.targets)
    for place, budget in enumerate(recipe.budgets):
        for name in match_artifacts(budget.artifact, list(by_id)):
            reason = by_id[name].not_here
            running = [limit.check for limit in limits_of(budget) if limit.check not in NEEDS_NO_RUN]
            if reason is not None and running:
                raise RecipeError(
                    f"budgets.{place} ({budget.artifact}): nobody measures {', '.join(running)} of {name}: {reason}. "
                    "Limit its size instead, or name the other formats."
                )


def _require_installed(distributions: Iterable[str], title: str, extra: str) -> None:
    missing = [name for name in distributions if not _installed(name)]
    if missing:
        raise MissingToolError(
            f"{title} needs {', '.join(missing)}, which is not installed; run: pip install 'edgekit[{extra}]'",
            stage="plan",
        )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def tool_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution: part of every key and of the manifest."""
    return {name: importlib.metadata.version(name) for name in sorted(set(distributions)) if _installed(name)}


def _warnings(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...]) -> Iterable[str]:
    for artifact in artifacts:
        if artifact.not_here is not None:
            yield f"{artifact.id}: written and inspected, not run: {artifact.not_here}."
    if recipe.data is None:
        yield "no data: outputs are compared on generated inputs only, which proves less than real samples do."


def framework_of(plan: Plan) -> FrameworkSpec:
    """Return the spec of the plan's framework."""
    return framework_spec(cast(str, plan.framework))
