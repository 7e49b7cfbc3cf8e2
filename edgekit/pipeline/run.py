"""Run a plan: train, make programs, export, verify, profile, judge, report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import yaml

from edgekit import __version__
from edgekit.budget.limits import evaluate_budgets, is_broken
from edgekit.errors import EdgekitError, InterruptedByUserError
from edgekit.formats import format_spec
from edgekit.frameworks.requests import TrainResult
from edgekit.pipeline.calls import Calls
from edgekit.pipeline.devices import check_usable
from edgekit.pipeline.plan import ArtifactPlan, Plan, framework_of, tool_versions
from edgekit.pipeline.profile import run_profile
from edgekit.pipeline.stages import Observer, StageRunner, ignore_events
from edgekit.process import stop_children
from edgekit.records import (
    SCHEMA_VERSION,
    Artifact,
    ArtifactReport,
    LayerError,
    Manifest,
    MeasuredProfile,
    Parity,
    Precision,
    Profile,
    Program,
    SkippedLayer,
    SourceModel,
    StageFailure,
    WeightHistogram,
    dumps,
    from_json,
)
from edgekit.report.html import render_report
from edgekit.store.atomic import digest_path, link_or_copy, publish, write_text
from edgekit.store.build_folder import BuildFolder, locked
from edgekit.store.cache import StageCache, cache_root
from edgekit.store.manifest import write_manifest
from edgekit.verify.coverage import coverage
from edgekit.verify.requests import VerifyResult

ProgramKey = tuple[Precision, bool]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOutcome:
    """A finished build: its document, its folder, and the exit code that it deserves."""

    manifest: Manifest
    folder: Path
    exit_code: int


def build(
    plan: Plan, output: Path, *, jobs: int, force: bool = False, observer: Observer = ignore_events
) -> BuildOutcome:
    """Run the whole journey.

    An artifact whose stage fails carries the failure in the manifest; the others finish.

    Args:
        plan: What to make.
        output: The build folder; held while the build runs.
        jobs: Child processes side by side. Profiles are always taken alone.
        force: Do the work anew.
        observer: Told of every stage.

    Raises:
        TargetError: A device cannot be used from here, so no work was done.
        EdgekitError: Training failed, or the folder cannot be written.
        InterruptedByUserError: Ctrl-C or SIGTERM; what was finished stays in the cache.
    """
    check_usable(plan.devices)
    with locked(output) as folder:
        runner = StageRunner(StageCache(cache_root()), folder, observer, force=force)
        try:
            return _Journey(plan, folder, runner, jobs, observer).run()
        except KeyboardInterrupt as error:
            stop_children()
            message = f"interrupted; what was finished is kept, the same command goes on from there ({output})"
            raise InterruptedByUserError(message) from error


class _Journey:
    """One build on its way."""

    def __init__(self, plan: Plan, folder: BuildFolder, runner: StageRunner, jobs: int, observer: Observer) -> None:
        self._plan = plan
        self._folder = folder
        self._runner = runner
        self._jobs = jobs
        self._observer = observer
        self._calls = Calls(plan, jobs)
        self._programs: dict[ProgramKey, Program] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._parities: dict[str, Parity] = {}
        self._failures: dict[str, list[StageFailure]] = {}
        self._errors: list[EdgekitError] = []
        self._stopping = False

    def run(self) -> BuildOutcome:
        if self._plan.recipe.train is not None:
            self._runner.run(self._calls.describe(), SourceModel)  # a rule that matches no layer ends the build here
        trained = self._runner.run(self._calls.train(), TrainResult)
        self._make_artifacts(trained)
        if not self._artifacts and self._errors:
            raise self._errors[0]  # nothing came out: an earlier build in this folder stays as it is
        reports = [self._finish(artifact) for artifact in self._plan.artifacts]
        manifest = self._write(trained, reports)
        return BuildOutcome(manifest=manifest, folder=self._folder.root, exit_code=_exit_code(reports))

    def _make_artifacts(self, trained: TrainResult) -> None:
        """Programs first; as soon as one is there, what is lowered from it. A failure stays with its artifacts."""
        pool = ThreadPoolExecutor(max_workers=self._jobs)
        waiting: dict[Future[None], None] = {}
        programs: dict[Future[None], ProgramKey] = {}
        try:
            for key in self._plan.programs:
                future = pool.submit(self._make_program, key, trained)
                programs[future] = key
                waiting[future] = None
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    del waiting[future]
                    future.result()
                    if future in programs and programs[future] in self._programs:
                        for artifact in self._lowered_from(programs[future]):
                            waiting[pool.submit(self._make_artifact, artifact)] = None
        except BaseException:
            self._stopping = True
            while any(future.running() for future in waiting):
                self._runner.cancel()
                wait(waiting, timeout=0.2)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _lowered_from(self, key: ProgramKey) -> Iterable[ArtifactPlan]:
        return (artifact for artifact in self._plan.artifacts if (artifact.program, artifact.dynamic_batch) == key)

    def _make_program(self, key: ProgramKey, trained: TrainResult) -> None:
        precision, dynamic = key
        call = self._calls.program(precision, dynamic, trained)
        try:
            self._programs[key] = self._runner.run(call, Program)
        except EdgekitError as error:
            for number, artifact in enumerate(self._lowered_from(key)):
                self._fail(artifact.id, call.name, error, told=number > 0)

    def _make_artifact(self, plan: ArtifactPlan) -> None:
        program = self._programs[plan.program, plan.dynamic_batch]
        call = self._calls.export(plan, program)
        try:
            artifact = self._runner.run(call, Artifact)
            self._artifacts[plan.id] = artifact
            if plan.not_here is None:
                call = self._calls.verify(plan, artifact, program)
                self._parities[plan.id] = self._runner.run(call, VerifyResult).parity
            else:
                self._parities[plan.id] = Parity(status="not run", reason=plan.not_here, samples=0)
        except EdgekitError as error:
            self._fail(plan.id, call.name, error)

    def _fail(self, artifact_id: str, stage: str, error: EdgekitError, *, told: bool = False) -> None:
        """Note that an artifact failed; ``told``: whoever watches has heard of this failure already."""
        if self._stopping:
            return  # the stage did not fail: its child was stopped with the build
        self._errors.append(error)
        log = self._folder.log(stage)
        place = log.relative_to(self._folder.root).as_posix() if log.is_file() else None
        message = getattr(error, "message", str(error))
        failure = StageFailure(stage=stage, message=message, log=place, exit_code=error.exit_code)
        self._failures.setdefault(artifact_id, []).append(failure)
        if not told:
            self._observer(stage, "failed", {"message": message, "log": place})

    def _finish(self, plan: ArtifactPlan) -> ArtifactReport:
        """Profile an artifact on every device that can run it, and put it into the build folder."""
        artifact = self._artifacts.get(plan.id)
        if artifact is None:
            return ArtifactReport(id=plan.id, artifact=None, error=self._failures[plan.id][0])
        profiles: list[Profile] = []
        if plan.not_here is None and plan.id not in self._failures:
            profiles = list(self._profiles(plan, artifact))
        measured = (profile for profile in profiles if isinstance(profile, MeasuredProfile))
        times = next((profile.operators for profile in measured if profile.operators), None)
        spec = format_spec(plan.format)
        if times and artifact.coverage is not None:
            partitions = artifact.coverage.partitions
            artifact = replace(
                artifact, coverage=coverage(artifact.operators, artifact.coverage.delegate, partitions, times)
            )
        place = self._folder.artifact(
            plan.format, self._plan.recipe.name, plan.precision, self._suffix_backend(plan), spec.suffix, plan.variant
        )
        if not place.exists() or digest_path(place) != artifact.sha256:
            publish(artifact.path, place)
        failures = self._failures.get(plan.id, [])
        return ArtifactReport(
            id=plan.id,
            artifact=replace(artifact, path=place.relative_to(self._folder.root)),
            parity=self._parities.get(plan.id),
            profiles=tuple(profiles),
            error=failures[0] if failures else None,
            other_errors=tuple(failures[1:]),
        )

    def _suffix_backend(self, plan: ArtifactPlan) -> str | None:
        return None if plan.backend == format_spec(plan.format).backends[0].name else plan.backend

    def _profiles(self, plan: ArtifactPlan, artifact: Artifact) -> Iterable[Profile]:
        """Profile on every device that runs the artifact; one that fails leaves the others alone."""
        program = self._programs[plan.program, plan.dynamic_batch]
        for device in self._plan.devices_of(plan):
            call = self._calls.profile(plan, artifact, program, device)
            try:
                yield run_profile(self._runner, call, device)
            except EdgekitError as error:
                self._fail(plan.id, call.name, error)

    def _write(self, trained: TrainResult, reports: list[ArtifactReport]) -> Manifest:
        """Judge the budgets and write the manifest and the report; the manifest comes last."""
        recipe = self._plan.recipe
        verdicts = evaluate_budgets(recipe.budgets, reports)
        reports[:] = [
            replace(report, verdicts=tuple(verdict for verdict in verdicts if verdict.artifact == report.id))
            for report in reports
        ]
        programs = [self._programs[key] for key in self._plan.programs[::-1] if key in self._programs]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=recipe.name,
            edgekit_version=__version__,
            recipe=self._recipe_as_resolved(),
            tools=tool_versions(self._distributions()),
            seed=recipe.train.seed if recipe.train is not None else 0,
            source=trained.source,
            source_accuracy=trained.source_accuracy,
            data_digest=self._calls.data_digest,
            training=trained.report,
            artifacts=tuple(reports),
            skipped=_unique(program.skipped for program in self._programs.values()),
            layer_errors=_read_all(programs, "layer_errors.json", LayerError),
            weight_histograms=_read_all(programs, "weight_histograms.json", WeightHistogram),
            warnings=(*self._plan.warnings, *self._calls.warnings(self._programs.values())),
        )
        for (precision, dynamic), program in self._programs.items():
            link_or_copy(program.reference, self._folder.reference(precision, dynamic, ".npz"))
            link_or_copy(program.path, self._folder.reference(precision, dynamic, ".pt2"))
            write_text(self._folder.reference(precision, dynamic, ".json"), dumps(program))
        self._remove_stale({str(report.artifact.path) for report in reports if report.artifact is not None})
        write_text(self._folder.recipe, yaml.safe_dump(self._recipe_as_resolved(), sort_keys=False))
        write_text(self._folder.report, render_report(manifest))
        write_manifest(manifest, self._folder.root)
        return manifest

    def _recipe_as_resolved(self) -> dict[str, object]:
        return self._plan.recipe.model_dump(mode="json", exclude_none=True)

    def _distributions(self) -> Iterable[str]:
        yield from framework_of(self._plan).distributions
        for artifact in self._plan.artifacts:
            yield from format_spec(artifact.format).distributions

    def _remove_stale(self, current: set[str]) -> None:
        """Take artifacts of an earlier recipe out of the folder, so that what lies there is what the manifest says."""
        for path in (self._folder.root / "artifacts").glob("*/*"):
            if path.relative_to(self._folder.root).as_posix() not in current:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _unique(groups: Iterable[tuple[SkippedLayer, ...]]) -> tuple[SkippedLayer, ...]:
    return tuple(dict.fromkeys(layer for group in groups for layer in group))


def _read_all(programs: Iterable[Program], name: str, kind: type[Record]) -> tuple[Record, ...]:
    """Read what the first program that knows it says of its layers: a float one has no quantization errors to tell."""
    files = (program.path.parent / name for program in programs)
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return ()
    return tuple(from_json(kind, item) for item in json.loads(path.read_text(encoding="utf-8")))


def _exit_code(reports: Iterable[ArtifactReport]) -> int:
    """Return 3 where a tool failed, else 2 where an input cannot work, else 1 where a check failed, else 0."""
    reports = list(reports)
    failed = [
        error.exit_code for report in reports for error in (report.error, *report.other_errors) if error is not None
    ]
    broken = any(
        (report.parity is not None and report.parity.status == "fail") or any(map(is_broken, report.verdicts))
        for report in reports
    )
    return max([*failed, int(broken), 0])
