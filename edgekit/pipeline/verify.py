"""Compare the artifacts of a finished build again: the files that lie there, not the cache."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import ArtifactError
from edgekit.formats import format_spec
from edgekit.pipeline.calls import VERIFY_ENTRY
from edgekit.pipeline.plan import ArtifactPlan, make_plan
from edgekit.process import run_child
from edgekit.recipe import parse_recipe
from edgekit.recipe.schema import VerifySection
from edgekit.records import SCHEMA_VERSION, Artifact, Parity, Program, from_json
from edgekit.store.atomic import digest_path
from edgekit.store.build_folder import BuildFolder, locked
from edgekit.store.manifest import read_manifest
from edgekit.verify.requests import VerifyRequest, VerifyResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactParity:
    """One artifact's comparison."""

    artifact: str
    parity: Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildParity:
    """Every comparison of a build."""

    schema_version: int = SCHEMA_VERSION
    name: str
    parities: tuple[ArtifactParity, ...]
    passed: bool


def verify_build(build_dir: Path, *, jobs: int) -> BuildParity:
    """Run every artifact of a build and compare it anew.

    Args:
        build_dir: The build folder.
        jobs: Child processes side by side.

    Raises:
        ArtifactError: No build there, or an artifact is missing or not the file that was built.
        OutputError: A build is writing the folder.
        ToolError: A runtime failed.
    """
    manifest = read_manifest(build_dir)
    recipe = parse_recipe(manifest.recipe, str(build_dir))
    plans = {plan.id: plan for plan in make_plan(recipe).artifacts}
    with locked(build_dir) as folder:
        built = [(plans[item.id], item.artifact) for item in manifest.artifacts if item.artifact is not None]
        for _, artifact in built:
            _require_unchanged(folder, artifact)
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            found = tuple(pool.map(lambda pair: _verify(folder, recipe.verify, *pair), built))
    passed = len(built) == len(manifest.artifacts) and not any(item.parity.status == "fail" for item in found)
    return BuildParity(name=manifest.name, parities=found, passed=passed)


def _require_unchanged(folder: BuildFolder, artifact: Artifact) -> None:
    path = folder.root / artifact.path
    if not path.exists() or digest_path(path) != artifact.sha256:
        state = "has changed since the build" if path.exists() else "is missing"
        raise ArtifactError(f"{path} {state}; build again to have it back.")


def _verify(folder: BuildFolder, section: VerifySection, plan: ArtifactPlan, artifact: Artifact) -> ArtifactParity:
    if plan.not_here is not None:
        parity = Parity(status="not run", reason=plan.not_here, samples=0)
        return ArtifactParity(artifact=plan.id, parity=parity)
    request = VerifyRequest(
        artifact=(folder.root / artifact.path).absolute(),
        precision=plan.precision,
        dynamic_batch=plan.dynamic_batch,
        open_session=format_spec(plan.format).open_session,
        program=_read_program(folder, plan),
        verify=section,
    )
    stage = f"verify:{plan.id}"
    result = run_child(
        VERIFY_ENTRY, request, VerifyResult, stage=stage, log=folder.log(stage), timeout_s=plan.timeout_s
    )
    return ArtifactParity(artifact=plan.id, parity=result.parity)


def _read_program(folder: BuildFolder, plan: ArtifactPlan) -> Program:
    document = folder.reference(plan.program, plan.dynamic_batch, ".json")
    samples = folder.reference(plan.program, plan.dynamic_batch, ".npz")
    for path in (document, samples):
        if not path.is_file():
            raise ArtifactError(f"expected the reference of {plan.id} at {path}; there is none. Build again.")
    program = from_json(Program, json.loads(document.read_text(encoding="utf-8")))
    return replace(program, reference=samples.absolute())
