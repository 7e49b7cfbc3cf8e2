"""Plan a build: what will be made, from what, and a refusal of whatever cannot work, before any work."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

from edgekit.budget.limits import check_budgets_can_be_judged, limits_of, match_artifacts
from edgekit.contracts import BackendSpec, FormatSpec, FrameworkSpec, WeightPlan, load_entry
from edgekit.errors import MissingToolError, RecipeError, UnsupportedError
from edgekit.formats import format_spec, require_cell
from edgekit.frameworks import framework_spec
from edgekit.pipeline.devices import Cell, check_figures, check_threads, refusal
from edgekit.pipeline.sources import find_framework
from edgekit.recipe.pruning import check_prune_rule
from edgekit.recipe.schema import CompressStep, ExportRule, QuantizeRule, Recipe
from edgekit.records import FormatName, FrameworkName, Precision, WeightCompression, artifact_id
from edgekit.targets import Device, find_device

CALIBRATED: tuple[Precision, ...] = ("int8", "int16x8")
"""Precisions whose activation scales come from data."""

NEEDS_NO_RUN = ("size", "delegated", "neural_engine")
"""Budget figures that are known from the file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactPlan:
    """One artifact to make.

    Attributes:
        variant: Name of the way in which its weights are stored; empty: the precision says enough.
        program: Precision of the program that it is lowered from.
        judged_as: The precision whose limits it is held to.
        compression: How its weights are stored; None: the format knows one way only.
        keep_float32: What computes in float32 where the rest computes in float16; None: ``auto``.
        not_here: Why this machine cannot run it; None: it can.
    """

    id: str
    format: FormatName
    precision: Precision
    variant: str
    program: Precision
    judged_as: Precision
    backend: str | None
    minimum_deployment_target: str | None
    compression: WeightCompression | None
    keep_float32: Literal["auto"] | tuple[str, ...] | None
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

    def devices_of(self, artifact: ArtifactPlan) -> tuple[Device, ...]:
        """Return the devices that an artifact is profiled on: those that run its format and backend."""
        return tuple(device for device in self.devices if refusal(device, artifact.format, artifact.backend) is None)


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
    artifacts = tuple(_plan_artifacts(recipe, framework))
    _refuse_twice(artifacts)
    _check_compression(recipe, artifacts, framework)
    devices = tuple(find_device(name) for name in recipe.profile.targets)
    check_threads(devices, recipe.profile.num_threads, "profile.num_threads")
    _check_budgets(recipe, artifacts, devices)
    programs = dict.fromkeys((artifact.program, artifact.dynamic_batch) for artifact in artifacts)
    return Plan(
        recipe=recipe,
        framework=framework.name,
        artifacts=artifacts,
        programs=tuple(programs),
        devices=devices,
        warnings=tuple(_warnings(recipe, artifacts, devices)),
    )


def _plan_artifacts(recipe: Recipe, framework: FrameworkSpec) -> Iterable[ArtifactPlan]:
    for place, rule in enumerate(recipe.export):
        spec = format_spec(rule.format)
        _require_installed(spec.distributions, spec.title, spec.extra)
        _check_options(spec, rule, f"export.{place}")
        for precision in rule.precision:
            backend, program = require_cell(spec, precision, rule.backend)
            program = framework.programs.get((spec.name, precision), program)
            _refuse(framework, precision, f"export.{place}: {spec.name} at {precision}")
            if rule.batch == "dynamic" and spec.dynamic_batch is not None:
                refusal = spec.dynamic_batch
                raise UnsupportedError(
                    f"export.{place}: a dynamic batch in {spec.title}", reason=refusal.reason, instead=refusal.instead
                )
            yield _artifact_plan(rule, spec, backend, precision, _plan_weights(recipe, spec, rule, precision, program))


def _plan_weights(
    recipe: Recipe, spec: FormatSpec, rule: ExportRule, precision: Precision, program: Precision
) -> WeightPlan:
    if spec.plan_weights is None:
        return WeightPlan(name="", program=program, compression=None)
    planned: WeightPlan = load_entry(spec.plan_weights)(
        rule.compression, precision, program, rule.minimum_deployment_target
    )
    quantize = recipe.quantize_rule(precision)
    if quantize is None or planned.compression is None or planned.program != "fp32":
        return planned
    # The quantized program, which leaves these layers alone, is not what this artifact is made from.
    skip = tuple(dict.fromkeys((*planned.compression.skip, *quantize.skip)))
    return replace(planned, compression=replace(planned.compression, skip=skip))


def _artifact_plan(
    rule: ExportRule, spec: FormatSpec, backend: BackendSpec, precision: Precision, weights: WeightPlan
) -> ArtifactPlan:
    name = None if backend is spec.backends[0] else backend.name
    return ArtifactPlan(
        id=artifact_id(spec.name, precision, name, weights.name),
        format=spec.name,
        precision=precision,
        variant=weights.name,
        program=weights.program,
        judged_as=weights.judged_as or precision,
        backend=backend.name,
        minimum_deployment_target=rule.minimum_deployment_target,
        compression=weights.compression,
        keep_float32=rule.keep_float32,
        dynamic_batch=rule.batch == "dynamic",
        timeout_s=rule.timeout / 1e3,
        not_here=backend.not_here,
    )


def _check_options(spec: FormatSpec, rule: ExportRule, place: str) -> None:
    for option in ("minimum_deployment_target", "compression", "keep_float32"):
        if getattr(rule, option) is not None and option not in spec.options:
            raise RecipeError(f"{place}: {option!r} means nothing to {spec.title}; leave it out of this export.")
    if rule.keep_float32 is not None and set(rule.precision) == {"fp32"}:
        raise RecipeError(
            f"{place}.keep_float32: says what stays in float32 where the rest computes in float16, and at fp32 all "
            "does; leave it out, or add fp16 to `precision`."
        )


def _refuse_twice(artifacts: tuple[ArtifactPlan, ...]) -> None:
    ids = [artifact.id for artifact in artifacts]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise RecipeError(f"export: expected each artifact once; received twice: {', '.join(twice)}.")


def _check_compression(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...], framework: FrameworkSpec) -> None:
    for number, step in enumerate(recipe.compress):
        place = f"compress.{number}.{step.kind}"
        _refuse(framework, step.kind, place)
        if step.quantize is not None:
            _check_quantize_rule(step.quantize, artifacts, framework, place)
        if step.prune is not None:
            check_prune_rule(step.prune, place)
        if recipe.train is None and _needs_training(step):
            raise RecipeError(f"{place}: this step happens during training, and the recipe has no `train:`.")
    _check_data(recipe, artifacts, framework)


def _needs_training(step: CompressStep) -> bool:
    return step.quantize is None or step.quantize.mode == "qat"


def _check_quantize_rule(
    rule: QuantizeRule, artifacts: tuple[ArtifactPlan, ...], framework: FrameworkSpec, place: str
) -> None:
    wanted = {artifact.precision for artifact in artifacts} | {artifact.program for artifact in artifacts}
    if rule.precision not in wanted:
        raise RecipeError(
            f"{place}: no artifact is exported at {rule.precision}; "
            f"exported: {', '.join(sorted({artifact.precision for artifact in artifacts}))}."
        )
    if rule.mode == "qat" and rule.precision != "int8":
        raise UnsupportedError(
            f"{place}: quantization-aware training to {rule.precision}",
            reason="only int8 activations and weights have fake-quantize operations to train through",
            instead="mode: ptq, or precision: int8",
        )
    if rule.calibration == "histogram":
        _refuse(framework, "quantize.calibration: histogram", f"{place}.calibration: histogram")
    if rule.unsupported == "refuse":
        _refuse(framework, "quantize.unsupported", f"{place}.unsupported: refuse")
        if rule.mode != "qat":
            raise RecipeError(
                f"{place}.unsupported: refuse is about quantization-aware training, and this step is post-training; "
                "write mode: qat, or leave the key out."
            )


def _refuse(framework: FrameworkSpec, asked: str, place: str) -> None:
    refusal = framework.refusals.get(asked)
    if refusal is not None:
        raise UnsupportedError(f"{place} of a {framework.title} model", reason=refusal.reason, instead=refusal.instead)


def _check_data(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...], framework: FrameworkSpec) -> None:
    if recipe.data is not None:
        return
    if recipe.train is not None:
        raise RecipeError("train: training needs `data:`.")
    if framework.own_scales and recipe.model.source.endswith(framework.own_scales):
        return
    for artifact in artifacts:
        if artifact.precision in CALIBRATED:
            raise RecipeError(
                f"{artifact.id}: activation scales come from real samples, and none are given; "
                "add `data:` to the recipe, or --calibration-data to `edgekit convert`."
            )


def _check_budgets(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...], devices: tuple[Device, ...]) -> None:
    by_id = {artifact.id: artifact for artifact in artifacts}
    check_budgets_can_be_judged(recipe.budgets, list(by_id), recipe.profile.targets)
    cells = [Cell(id=artifact.id, format=artifact.format, backend=artifact.backend) for artifact in artifacts]
    check_figures(recipe.budgets, cells, devices, recipe.profile.model)
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


def _warnings(recipe: Recipe, artifacts: tuple[ArtifactPlan, ...], devices: tuple[Device, ...]) -> Iterable[str]:
    for artifact in artifacts:
        if artifact.not_here is not None:
            yield f"{artifact.id}: written and inspected, not run: {artifact.not_here}."
            continue
        for device in devices:
            reason = refusal(device, artifact.format, artifact.backend)
            if reason is not None:
                yield f"{artifact.id}: not profiled on {device.name}: {reason}."
    if recipe.data is None:
        yield "no data: outputs are compared on generated inputs only, which proves less than real samples do."


def framework_of(plan: Plan) -> FrameworkSpec:
    """Return the spec of the plan's framework."""
    return framework_spec(cast(str, plan.framework))
