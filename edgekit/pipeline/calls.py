"""The stages of a plan: for each, what it reads and what is asked of the child that does it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from edgekit.data.fingerprint import code_digest, data_digest, path_digest
from edgekit.formats import format_spec
from edgekit.frameworks.requests import ModelRequest, ProgramRequest, TrainRequest, TrainResult
from edgekit.pipeline.devices import decided_by
from edgekit.pipeline.plan import ArtifactPlan, Plan, framework_of, tool_versions
from edgekit.pipeline.sources import is_entry
from edgekit.pipeline.stages import StageCall
from edgekit.recipe.schema import (
    ClusterRule,
    CompressStep,
    DistilRule,
    LayerRules,
    ModelSection,
    PruneRule,
    QuantizeRule,
)
from edgekit.records import Artifact, ExportRequest, Precision, ProfileConfig, Program
from edgekit.targets import Device, ProfileRequest, target_spec
from edgekit.verify.requests import VerifyRequest

EXPORT_ENTRY = "edgekit.pipeline.entries:export_artifact"
VERIFY_ENTRY = "edgekit.verify.run:verify_artifact"


class Calls:
    """Makes the stage calls of one plan.

    Args:
        plan: What to make.
        jobs: How many children share the cores.
    """

    def __init__(self, plan: Plan, jobs: int) -> None:
        self._plan = plan
        self._recipe = plan.recipe
        self._framework = framework_of(plan)
        self._threads = 1 if jobs > 1 else None
        self.data_digest = data_digest(self._recipe.data) if self._recipe.data is not None else ""
        self._model_reads: dict[str, Any] = {
            "model": model_digest(self._recipe.model),
            "data": self.data_digest,
            "tools": tool_versions(self._framework.distributions),
        }

    def describe(self) -> StageCall:
        """Load the model, list its layers, check the rules that pick them."""
        rules = _layer_rules(self._recipe.compress)
        quantize = tuple(step.quantize for step in self._recipe.compress if step.quantize is not None)
        request = ModelRequest(model=self._recipe.model, data=self._recipe.data, rules=rules, quantize=quantize)
        settings = [rule.model_dump(mode="json") for rule in quantize]
        return StageCall(
            name="describe",
            reads={**self._model_reads, "rules": rules, "quantize": settings},
            entry=self._framework.describe,
            request=lambda _: request,
        )

    def train(self) -> StageCall:
        """Train in floating point."""
        train = self._recipe.train
        prune = cast(PruneRule | None, self._recipe.rule("prune"))
        distil = cast(DistilRule | None, self._recipe.rule("distil"))
        cluster = cast(ClusterRule | None, self._recipe.rule("cluster"))
        devices = train.devices if train is not None else 1
        launcher = [part.format(devices=devices) for part in self._framework.launcher] if devices > 1 else ()
        return StageCall(
            name="train",
            reads=self._train_reads(),
            entry=self._framework.train,
            request=lambda workspace: TrainRequest(
                model=self._recipe.model,
                data=self._recipe.data,
                train=train,
                prune=prune,
                cluster=cluster,
                distil=distil,
                work_dir=workspace.scratch,
                output_dir=workspace.out,
            ),
            launcher=launcher,
        )

    def _train_reads(self) -> dict[str, Any]:
        train = self._recipe.train
        distil = cast(DistilRule | None, self._recipe.rule("distil"))
        prune, cluster = self._recipe.rule("prune"), self._recipe.rule("cluster")
        return {
            **self._model_reads,
            "train": train.model_dump(mode="json") if train else None,
            "loss": code_digest(train.loss) if train is not None and ":" in train.loss else None,
            "prune": prune.model_dump(mode="json") if prune else None,
            "cluster": cluster.model_dump(mode="json") if cluster else None,
            "distil": distil.model_dump(mode="json") if distil else None,
            "teacher": model_digest(distil.teacher) if distil else None,
        }

    def program(self, precision: Precision, dynamic_batch: bool, trained: TrainResult) -> StageCall:
        """Turn the trained model into a program of one precision."""
        rule: QuantizeRule | None = self._recipe.quantize_rule(precision)
        return StageCall(
            name=f"program:{precision}{'+dynamic-batch' if dynamic_batch else ''}",
            reads=self._program_reads(precision, dynamic_batch),
            entry=self._framework.to_program,
            request=lambda workspace: ProgramRequest(
                model=self._recipe.model,
                data=self._recipe.data,
                weights=trained.weights,
                precision=precision,
                quantize=rule,
                train=self._recipe.train,
                prune=cast(PruneRule | None, self._recipe.rule("prune")),
                cluster=cast(ClusterRule | None, self._recipe.rule("cluster")),
                distil=cast(DistilRule | None, self._recipe.rule("distil")),
                verify=self._recipe.verify,
                dynamic_batch=dynamic_batch,
                work_dir=workspace.scratch,
                output_dir=workspace.out,
            ),
        )

    def _program_reads(self, precision: Precision, dynamic_batch: bool) -> dict[str, Any]:
        rule = self._recipe.quantize_rule(precision)
        return {
            "train": self._train_reads(),
            "precision": precision,
            "dynamic_batch": dynamic_batch,
            "quantize": rule.model_dump(mode="json") if rule else None,
            "samples": self._recipe.verify.samples,
        }

    def export(self, plan: ArtifactPlan, program: Program) -> StageCall:
        """Lower a program to an artifact."""
        spec = format_spec(plan.format)
        return StageCall(
            name=f"export:{plan.id}",
            reads={
                "program": self._program_reads(plan.program, plan.dynamic_batch),
                "artifact": {key: value for key, value in asdict(plan).items() if key not in ("timeout_s", "not_here")},
                "tools": tool_versions(spec.distributions),
            },
            entry=EXPORT_ENTRY,
            request=lambda workspace: ExportRequest(
                program=program,
                format=plan.format,
                precision=plan.precision,
                output=workspace.out / f"artifact{spec.suffix}",
                work_dir=workspace.scratch,
                backend=plan.backend,
                minimum_deployment_target=plan.minimum_deployment_target,
                compression=plan.compression,
                variant=plan.variant,
                keep_float32=plan.keep_float32,
                dynamic_batch=plan.dynamic_batch,
            ),
            timeout_s=plan.timeout_s,
            threads=self._threads,
        )

    def verify(self, plan: ArtifactPlan, artifact: Artifact, program: Program) -> StageCall:
        """Run an artifact on the verification samples and compare."""
        spec = format_spec(plan.format)
        return StageCall(
            name=f"verify:{plan.id}",
            reads={
                "artifact": artifact.sha256,
                "program": self._program_reads(plan.program, plan.dynamic_batch),
                "verify": self._recipe.verify.model_dump(mode="json"),
                "tools": tool_versions(spec.distributions),
            },
            entry=VERIFY_ENTRY,
            request=lambda workspace: VerifyRequest(
                artifact=artifact.path,
                precision=plan.judged_as,
                dynamic_batch=plan.dynamic_batch,
                open_session=spec.open_session,
                program=program,
                verify=self._recipe.verify,
                half_precision=artifact.half_precision,
                outputs=workspace.out / "outputs.npz",
            ),
            timeout_s=plan.timeout_s,
            threads=self._threads,
        )

    def profile(self, plan: ArtifactPlan, artifact: Artifact, program: Program, device: Device) -> StageCall:
        """Time an artifact on a device."""
        section = self._recipe.profile
        config = ProfileConfig(
            num_runs=section.num_runs,
            warmup_runs=section.warmup_runs,
            num_threads=section.num_threads,
            profile_ops=section.profile_ops,
        )
        spec = format_spec(plan.format)
        return StageCall(
            name=f"profile:{plan.id}@{device.name}",
            reads={
                "artifact": artifact.sha256,
                "device": device.model_dump(mode="json"),
                "config": asdict(config),
                "machine": [platform.node(), platform.machine(), platform.release()],
                "tools": tool_versions(spec.distributions),
                **decided_by(device, section.model),
            },
            entry=target_spec(device.kind, place=f"profile.targets ({device.name})").profile,
            request=lambda workspace: ProfileRequest(
                artifact=artifact.path,
                artifact_id=plan.id,
                format=plan.format,
                open_session=spec.open_session,
                reference=program.reference,
                device=device.model_dump(mode="json"),
                config=config,
                work_dir=workspace.scratch,
                model=section.model,
                inspect=spec.inspect,
                place=spec.place,
            ),
            timeout_s=plan.timeout_s,
        )

    def warnings(self, programs: Iterable[Program]) -> Iterable[str]:
        """Return what the programs warn of, each once."""
        return dict.fromkeys(warning for program in programs for warning in program.warnings)


def model_digest(section: ModelSection) -> dict[str, Any]:
    """Return everything that decides a model: its settings, its code, the content of its files."""
    reads: dict[str, Any] = section.model_dump(mode="json", exclude={"source", "weights"})
    if section.builder is not None:
        reads["builder_code"] = code_digest(section.builder)
    for name in ("source", "weights"):
        value = getattr(section, name)
        if value is None:
            continue
        is_code = is_entry(value)
        reads[name] = {"entry": value, "code": code_digest(value)} if is_code else path_digest(Path(value))
    return reads


def _layer_rules(steps: Iterable[CompressStep]) -> dict[str, tuple[str, ...]]:
    """Return ``place in the recipe -> rules`` of every step that skips layers."""
    rules = {}
    for place, step in enumerate(steps):
        section = getattr(step, step.kind)
        if isinstance(section, LayerRules) and section.skip:
            rules[f"compress.{place}.{step.kind}.skip"] = section.skip
    return rules
