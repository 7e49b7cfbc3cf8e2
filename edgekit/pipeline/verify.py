"""Compare the artifacts of a finished build again: the files that lie there, not the cache."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.formats import format_spec, format_specs
from edgekit.pipeline.calls import VERIFY_ENTRY
from edgekit.pipeline.half_precision import analyse_half_precision
from edgekit.pipeline.plan import ArtifactPlan, make_plan
from edgekit.process import run_child
from edgekit.recipe import parse_recipe
from edgekit.recipe.schema import VerifySection
from edgekit.records import SCHEMA_VERSION, Artifact, Compute, Parity, Program, from_json
from edgekit.store.atomic import digest_path
from edgekit.store.build_folder import BuildFolder, locked
from edgekit.store.manifest import read_manifest
from edgekit.verify.half_precision import blame
from edgekit.verify.requests import VerifyRequest, VerifyResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactParity:
    """One artifact's comparison."""

    artifact: str
    parity: Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildParity:
    """Every comparison of a build.

    Attributes:
        compute: What was rounded to float16, whatever the artifacts say; None: their runtimes decided.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    compute: Compute | None = None
    parities: tuple[ArtifactParity, ...]
    passed: bool


def verify_build(build_dir: Path, *, jobs: int, compute: Compute | None = None) -> BuildParity:
    """Run every artifact of a build and compare it anew.

    Args:
        build_dir: The build folder.
        jobs: Child processes side by side.
        compute: Evaluate only the artifacts whose arithmetic can be chosen, in this one; fp32 artifacts in ``fp16``
            are held to what fp16 ones are held to. None: run all on their runtimes.

    Raises:
        ArtifactError: No build there, or an artifact is missing or not the file that was built.
        UnsupportedError: The arithmetic of no artifact can be chosen.
        OutputError: A build is writing the folder.
        ToolError: A runtime failed.
    """
    manifest = read_manifest(build_dir)
    recipe = parse_recipe(manifest.recipe, str(build_dir))
    plans = {plan.id: plan for plan in make_plan(recipe).artifacts}
    with locked(build_dir) as folder:
        wanted = [item for item in manifest.artifacts if compute is None or _entry(plans[item.id], compute) is not None]
        if not wanted:
            raise _nothing_to_evaluate(build_dir)
        built = [(plans[item.id], item.artifact) for item in wanted if item.artifact is not None]
        for _, artifact in built:
            _require_unchanged(folder, artifact)
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            found = tuple(pool.map(lambda pair: _verify(folder, recipe.verify, pair[0], pair[1], compute), built))
    passed = len(built) == len(wanted) and not any(item.parity.status == "fail" for item in found)
    return BuildParity(name=manifest.name, parities=found, passed=passed, compute=compute)


def _entry(plan: ArtifactPlan, compute: Compute | None) -> str | None:
    """Return what opens an artifact; None where its arithmetic is asked for and cannot be chosen."""
    spec = format_spec(plan.format)
    return spec.open_session if compute is None else spec.open_session_with_compute


def _nothing_to_evaluate(build_dir: Path) -> UnsupportedError:
    able = ", ".join(spec.title for spec in format_specs().values() if spec.open_session_with_compute is not None)
    return UnsupportedError(
        f"--compute for the build in {str(build_dir)!r}",
        reason=f"it holds no artifact of {able}, and other formats' runtimes decide themselves what they compute in",
        instead="no --compute, or a build that exports coreml",
    )


def _require_unchanged(folder: BuildFolder, artifact: Artifact) -> None:
    path = folder.root / artifact.path
    if not path.exists() or digest_path(path) != artifact.sha256:
        state = "has changed since the build" if path.exists() else "is missing"
        raise ArtifactError(f"{path} {state}; build again to have it back.")


def _verify(
    folder: BuildFolder, section: VerifySection, plan: ArtifactPlan, artifact: Artifact, compute: Compute | None
) -> ArtifactParity:
    entry = _entry(plan, compute)
    if entry is None or (plan.not_here is not None and compute is None):
        parity = Parity(status="not run", reason=plan.not_here, samples=0)
        return ArtifactParity(artifact=plan.id, parity=parity)
    request = VerifyRequest(
        artifact=(folder.root / artifact.path).absolute(),
        precision="fp16" if compute == "fp16" and plan.judged_as == "fp32" else plan.judged_as,
        dynamic_batch=plan.dynamic_batch,
        open_session=entry,
        program=_read_program(folder, plan),
        verify=section,
        compute=compute,
        half_precision=artifact.half_precision if compute in (None, "declared") else None,
    )
    stage = f"verify:{plan.id}"
    result = run_child(
        VERIFY_ENTRY, request, VerifyResult, stage=stage, log=folder.log(stage), timeout_s=plan.timeout_s
    )
    parity = result.parity
    if compute == "fp16" and parity.status == "fail":
        parity = blame(parity, analyse_half_precision(request.artifact, request.program.reference, compute))
    return ArtifactParity(artifact=plan.id, parity=parity)


def _read_program(folder: BuildFolder, plan: ArtifactPlan) -> Program:
    document = folder.reference(plan.program, plan.dynamic_batch, ".json")
    samples = folder.reference(plan.program, plan.dynamic_batch, ".npz")
    for path in (document, samples):
        if not path.is_file():
            raise ArtifactError(f"expected the reference of {plan.id} at {path}; there is none. Build again.")
    program = from_json(Program, json.loads(document.read_text(encoding="utf-8")))
    return replace(program, reference=samples.absolute())
