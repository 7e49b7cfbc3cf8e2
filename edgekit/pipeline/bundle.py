"""Make a folder to carry to a device: the artifacts of a build, golden inputs and outputs, and what runs them there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, load_entry
from edgekit.data.feeding import fit_inputs
from edgekit.errors import ArtifactError, OutputError, UnsupportedError
from edgekit.formats import format_spec
from edgekit.pipeline.plan import ArtifactPlan, make_plan
from edgekit.process import run_child
from edgekit.recipe import parse_recipe
from edgekit.records import SCHEMA_VERSION, Artifact, TensorSpec
from edgekit.store.atomic import digest_path, publish, size_bytes
from edgekit.store.build_folder import BuildFolder
from edgekit.store.manifest import read_manifest
from edgekit.targets.devices import packaged_targets
from edgekit.targets.measure_job import SAMPLES
from edgekit.verify.judge import FLOAT_MIN_SQNR_DB
from edgekit.verify.parity import sqnr_db
from edgekit.verify.reference import load_arrays

Array = NDArray[np.generic]

PLATFORMS = ("ios",)
"""What there are templates for; ``targets/<platform>``."""
MARK = Path("EdgekitBench.swiftpm")
"""A folder that holds this is a bundle of ours, and may be replaced."""
FIXTURE = MARK / "Bench" / "Sources" / "EdgekitBench" / "Fixture"
OLDEST_IOS = 16
"""The Swift sources use what came with it: ``MLShapedArray(converting:)``, ``NavigationStack``."""
MACOS_OF_IOS = {16: 13, 17: 14, 18: 15, 26: 26}
NUM_RUNS, WARMUP_RUNS = 100, 10
NOT_RUN = "the Swift sources have been checked for syntax, and have never been compiled or run: no Mac was at hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledArtifact:
    """One artifact of a bundle.

    Attributes:
        id: As in the build.
        samples: How many golden inputs and outputs go with it.
    """

    id: str
    sha256: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """A folder that was made."""

    schema_version: int = SCHEMA_VERSION
    platform: str
    path: Path
    size_bytes: int
    artifacts: tuple[BundledArtifact, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """What one artifact is to be given, and where its answers go.

    Attributes:
        artifact: Its path.
        open_session: ``module:function`` of its format.
        reference: ``.npz`` with ``input_<i>``.
        output: Folder to write one ``.bin`` an array to: row-major, little-endian, the samples in axis 0.
    """

    artifact: Path
    open_session: str
    reference: Path
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenTensor:
    """An array in a file of the bundle."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The arrays of one artifact.

    Attributes:
        min_sqnr_db: What a device must keep against the golden outputs: 40 dB, what fp16 is held to, or the artifact's
            own distance from the source model where that is larger.
    """

    samples: int
    min_sqnr_db: float
    inputs: tuple[GoldenTensor, ...]
    outputs: tuple[GoldenTensor, ...]


def bundle_build(build_dir: Path, platform: str, output: Path | None) -> BundleReport:
    """Bundle the Core ML artifacts of a build.

    Args:
        build_dir: The build folder.
        platform: Such as ``ios``.
        output: Folder to write; None: ``<build>-<platform>`` beside the build.

    Raises:
        UnsupportedError: No such platform, or the build has nothing for it.
        ArtifactError: No build there, or an artifact is missing or changed since.
        OutputError: The folder holds something else, or cannot be written.
        ToolError: An artifact could not be evaluated.
    """
    if platform not in PLATFORMS:
        raise UnsupportedError(
            f"edgekit bundle --for {platform}",
            reason="there is no runner to carry there: templates exist for " + ", ".join(PLATFORMS),
            instead="--for ios, or an emulated target, or a target of kind ssh",
        )
    folder = BuildFolder(build_dir)
    chosen = list(_artifacts(folder))
    if not chosen:
        raise UnsupportedError(
            f"bundling {build_dir} for {platform}",
            reason="the build has no Core ML artifact",
            instead="an export rule of the recipe: {format: coreml, precision: [fp16]}",
        )
    place = output or build_dir.resolve().with_name(f"{build_dir.resolve().name}-{platform}")
    _require_ours(place)
    with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as scratch:
        made = Path(scratch) / place.name
        bundled = tuple(_write(folder, made, chosen))
        publish(made, place)
    return BundleReport(
        platform=platform, path=place, size_bytes=size_bytes(place), artifacts=bundled, notes=(NOT_RUN,)
    )


def _artifacts(folder: BuildFolder) -> Iterator[tuple[ArtifactPlan, Artifact]]:
    """Yield the Core ML artifacts of a build that are there and unchanged."""
    manifest = read_manifest(folder.root)
    plans = {plan.id: plan for plan in make_plan(parse_recipe(manifest.recipe, str(folder.root))).artifacts}
    for item in manifest.artifacts:
        if item.artifact is None or item.artifact.format != "coreml":
            continue
        path = folder.root / item.artifact.path
        if not path.exists() or digest_path(path) != item.artifact.sha256:
            state = "has changed since the build" if path.exists() else "is missing"
            raise ArtifactError(f"{path} {state}; build again to have it back.")
        yield plans[item.id], item.artifact


def _require_ours(place: Path) -> None:
    if place.exists() and not (place / MARK).is_dir() and not (place.is_dir() and not any(place.iterdir())):
        raise OutputError(f"{place} exists and is no bundle, so it is not replaced; choose another folder with -o.")


def _write(folder: BuildFolder, made: Path, chosen: list[tuple[ArtifactPlan, Artifact]]) -> Iterator[BundledArtifact]:
    words = _words(folder, chosen)
    for template in sorted((packaged_targets() / "ios").rglob("*")):
        if template.is_file():
            target = made / template.relative_to(packaged_targets() / "ios")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = template.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(f"@{word}@", value)
            target.write_text(text, encoding="utf-8")
    fixture = made / FIXTURE
    documents, samples = [], []
    for plan, artifact in chosen:
        path = folder.root / artifact.path
        shutil.copytree(path, fixture / "models" / path.name)
        golden = _golden(folder, plan, artifact, fixture / "golden" / path.stem)
        documents.append(_document(fixture, plan.id, artifact, golden))
        samples.append(golden.samples)
        yield BundledArtifact(id=plan.id, sha256=artifact.sha256, samples=golden.samples)
    whole = {
        "schema_version": SCHEMA_VERSION,
        "name": words["NAME"],
        "samples": min(samples),
        "num_runs": NUM_RUNS,
        "warmup_runs": WARMUP_RUNS,
        "artifacts": documents,
    }
    (fixture / "bundle.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _words(folder: BuildFolder, chosen: list[tuple[ArtifactPlan, Artifact]]) -> dict[str, str]:
    """Return what takes the place of ``@WORD@`` in the templates."""
    plan, artifact = chosen[0]
    needed = max([OLDEST_IOS, *(_ios(artifact.minimum_deployment_target) for _, artifact in chosen)])
    return {
        "NAME": read_manifest(folder.root).name,
        "ARTIFACTS": ", ".join(f"`{plan.id}`" for plan, _ in chosen),
        "IOS_VERSION": f"{needed}.0",
        "MACOS_VERSION": f"{MACOS_OF_IOS.get(needed, needed)}.0",
        "FIRST_ARTIFACT": artifact.path.as_posix(),
        "FIRST_REFERENCE": folder.reference(plan.program, plan.dynamic_batch, ".npz")
        .relative_to(folder.root)
        .as_posix(),
    }


def _ios(target: str | None) -> int:
    """Return ``17`` of ``iOS17``; 0 where none is named, or that of another system."""
    return int(target[3:]) if target is not None and target.startswith("iOS") and target[3:].isdigit() else 0


def _golden(folder: BuildFolder, plan: ArtifactPlan, artifact: Artifact, output: Path) -> Golden:
    request = GoldenRequest(
        artifact=(folder.root / artifact.path).absolute(),
        open_session=format_spec("coreml").open_session,
        reference=folder.reference(plan.program, plan.dynamic_batch, ".npz").absolute(),
        output=output.absolute(),
    )
    stage = f"bundle:{plan.id}"
    return run_child("edgekit.pipeline.bundle:make_golden", request, Golden, stage=stage, log=folder.log(stage))


def _document(fixture: Path, name: str, artifact: Artifact, golden: Golden) -> dict[str, object]:
    """Describe one artifact as ``Fixture.swift`` reads it, its files relative to the fixture."""

    def tensor(tensor: GoldenTensor) -> dict[str, object]:
        file = Path(tensor.file).relative_to(fixture.absolute()).as_posix()
        return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "file": file}

    return {
        "id": name,
        "file": f"models/{artifact.path.name}",
        "sha256": artifact.sha256,
        "min_sqnr_db": golden.min_sqnr_db,
        "inputs": [tensor(one) for one in golden.inputs],
        "outputs": [tensor(one) for one in golden.outputs],
    }


def make_golden(request: GoldenRequest) -> Golden:
    """Run an artifact on this machine on the first samples of the reference, and write what went in and came out.

    Raises:
        ArtifactError: The reference cannot be read, or does not fit the artifact.
        ToolError: The artifact could not be evaluated.
    """
    arrays = load_arrays(request.reference)
    request.output.mkdir(parents=True, exist_ok=True)
    with load_entry(request.open_session)(request.artifact, 1) as session:
        fed, given = zip(*_runs(session, arrays, request.reference), strict=True)
        inputs = _written(request.output, "input", session.inputs, fed)
        outputs = _written(request.output, "output", session.outputs, given, dtype="float32")
    least = min([FLOAT_MIN_SQNR_DB["fp16"], *_own_distances(given, arrays)])
    return Golden(samples=len(fed), min_sqnr_db=round(least, 1), inputs=inputs, outputs=outputs)


def _runs(
    session: Session, arrays: dict[str, Array], place: Path
) -> Iterator[tuple[tuple[Array, ...], tuple[Array, ...]]]:
    names = [f"input_{index}" for index in range(len(session.inputs))]
    if not all(name in arrays and len(arrays[name]) for name in names):
        raise ArtifactError(f"{place}: expected {', '.join(names)} with at least one sample; build again")
    for index in range(min(SAMPLES, *(len(arrays[name]) for name in names))):
        sample = [arrays[name][index : index + 1] for name in names]
        real = [array.astype(np.float32) if array.dtype == bool else array for array in sample]
        yield fit_inputs(session.inputs, real), session.run(sample)


def _own_distances(given: tuple[tuple[Array, ...], ...], arrays: dict[str, Array]) -> Iterator[float]:
    """Yield how far each output is from the source model's, in dB, where the reference tells."""
    for index, column in enumerate(zip(*given, strict=True)):
        source = arrays.get(f"source_output_{index}")
        if source is not None:
            output = np.concatenate([np.atleast_1d(one) for one in column]).astype(np.float64)
            yield sqnr_db(output, source[: len(output)].astype(np.float64))


def _written(
    folder: Path,
    kind: str,
    specs: tuple[TensorSpec, ...],
    runs: tuple[tuple[Array, ...], ...],
    dtype: str | None = None,
) -> tuple[GoldenTensor, ...]:
    found = []
    for index, spec in enumerate(specs):
        array = np.concatenate([np.atleast_1d(run[index]) for run in runs])
        array = np.ascontiguousarray(array.astype(np.dtype(dtype or array.dtype).newbyteorder("<")))
        file = folder / f"{kind}_{index}.bin"
        file.write_bytes(array.tobytes())
        found.append(GoldenTensor(name=spec.name, dtype=array.dtype.name, shape=array.shape, file=str(file)))
    return tuple(found)
