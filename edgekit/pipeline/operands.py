"""What two things are compared: artifacts, programs, or artifacts of builds and the programs that they were made of."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.errors import ArtifactError, UnsupportedError, nearest
from edgekit.formats import format_of_path, format_specs
from edgekit.pipeline.plan import make_plan
from edgekit.recipe import parse_recipe
from edgekit.records import Program, from_json
from edgekit.store.build_folder import BuildFolder
from edgekit.store.manifest import read_manifest

PROGRAM_SUFFIX = ".pt2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One side of a comparison.

    Attributes:
        path: An artifact, or a program (``.pt2``).
        samples: ``.npz`` with ``input_<i>`` that it was verified on; None: it is of no build.
    """

    path: Path
    samples: Path | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is a program and no artifact."""
        return self.path.suffix == PROGRAM_SUFFIX


def is_artifact_or_program(path: Path) -> bool:
    """Whether a path is named like an artifact or a program."""
    suffixes = (PROGRAM_SUFFIX, *(spec.suffix for spec in format_specs().values()))
    return path.suffix in suffixes


def find_operands(first: Path, second: Path | None, artifact: str | None) -> tuple[Operand, Operand]:
    """Find what is to be compared.

    Args:
        first: An artifact, a program, or a build folder.
        second: The same; None: the first is a build, whose artifact is held against the program it was made of.
        artifact: Which artifact of a build folder (``coreml/fp16``).

    Raises:
        ArtifactError: There is no such thing, or it is not said which artifact of a build is meant.
        UnsupportedError: Two programs.
    """
    if second is None:
        if is_artifact_or_program(first):
            raise ArtifactError(
                f"expected two artifacts or programs, or a build folder with --artifact, to compare; received {first}"
            )
        return _program_of(first, _named(artifact, first)), _artifact_of(first, _named(artifact, first))
    found = _operand(first, artifact), _operand(second, artifact)
    if found[0].is_program and found[1].is_program:
        raise UnsupportedError(
            "comparing two programs",
            reason="a program is what artifacts are held against",
            instead="an artifact as the second",
        )
    return (found[1], found[0]) if found[1].is_program else found


def _operand(path: Path, artifact: str | None) -> Operand:
    if not is_artifact_or_program(path):
        return _artifact_of(path, _named(artifact, path))
    if not path.exists():
        raise ArtifactError(f"expected an artifact or a program (.pt2) at {path}; there is none.")
    return Operand(path=path.absolute())


def _named(artifact: str | None, build: Path) -> str:
    if artifact is None:
        known = ", ".join(item.id for item in read_manifest(build).artifacts)
        raise ArtifactError(f"expected --artifact with one of {build}: {known}.")
    return artifact


def _artifact_of(build: Path, artifact: str) -> Operand:
    folder, program = _folder_and_program(build, artifact)
    (found,) = (item.artifact for item in read_manifest(build).artifacts if item.id == artifact)
    path = None if found is None else folder.root / found.path
    if path is None or not path.exists():
        raise ArtifactError(f"{build} holds no {artifact}: it was not built, or is missing. Build again.")
    return Operand(path=path.absolute(), samples=program.reference)


def _program_of(build: Path, artifact: str) -> Operand:
    _, program = _folder_and_program(build, artifact)
    if not program.path.is_file():
        raise ArtifactError(f"expected the program of {artifact} at {program.path}; there is none. Build again.")
    return Operand(path=program.path, samples=program.reference)


def _folder_and_program(build: Path, artifact: str) -> tuple[BuildFolder, Program]:
    manifest = read_manifest(build)
    known = [item.id for item in manifest.artifacts]
    if artifact not in known:
        raise ArtifactError(f"{build} has no artifact {artifact!r}. {nearest(artifact, known)}")
    folder = BuildFolder(build if build.is_dir() else build.parent)
    plans = {plan.id: plan for plan in make_plan(parse_recipe(manifest.recipe, str(build))).artifacts}
    plan = plans[artifact]
    document = folder.reference(plan.program, plan.dynamic_batch, ".json")
    if not document.is_file():
        raise ArtifactError(f"expected the program's record of {artifact} at {document}; there is none. Build again.")
    program = from_json(Program, json.loads(document.read_text(encoding="utf-8")))
    kept = folder.reference(plan.program, plan.dynamic_batch, PROGRAM_SUFFIX)
    samples = folder.reference(plan.program, plan.dynamic_batch, ".npz")
    return folder, replace(program, path=kept.absolute(), reference=samples.absolute())


def tracing_format(first: Operand, second: Operand) -> str:
    """Return the format whose operations are looked at.

    Raises:
        UnsupportedError: One of two artifacts is of a format that shows no values between.
    """
    names = {format_of_path(str(side.path)).name for side in (first, second) if not side.is_program}
    silent = sorted(name for name in names if format_specs()[name].open_trace is None)
    if silent or len(names) > 1:
        able = ", ".join(name for name, spec in format_specs().items() if spec.open_trace is not None)
        raise UnsupportedError(
            f"comparing {' with '.join(sorted(names))} inside (a program, operators, or an arithmetic)",
            reason=f"only {able} artifacts show what lies between their inputs and outputs",
            instead=f"two artifacts of {able}, or a program and one of them; without these options, any two artifacts",
        )
    return names.pop()
