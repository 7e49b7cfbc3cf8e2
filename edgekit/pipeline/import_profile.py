"""Read measurements that were taken elsewhere, by the script for Macs or the app for iPhones, as profiles."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import ArtifactError, UserInputError
from edgekit.formats import format_of_path
from edgekit.pipeline.inspect import require_artifact
from edgekit.process import run_alone
from edgekit.records import MeasuredProfile, ProfileConfig
from edgekit.store.atomic import digest_path
from edgekit.targets.measure_job import measure_job
from edgekit.targets.measured import measured_profile
from edgekit.targets.measurement import Measurement, MeasurementDocument, read_document
from edgekit.targets.schema import ProfileRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """One measurement of a document, to be compared with what the artifact computes here.

    Attributes:
        document: The file.
        request: Names the artifact, the reference and the device.
    """

    document: Path
    request: ProfileRequest


def import_profiles(
    documents: Sequence[Path], *, artifact: Path | None, inputs: Path | None, target: str | None
) -> tuple[MeasuredProfile, ...]:
    """Read every measurement of some documents.

    Args:
        documents: What the script or the app wrote.
        artifact: Take only the measurements of this artifact, and compare what it computed there with what it
            computes here; None: take all, compare nothing.
        inputs: The ``.npz`` whose first samples were fed; only with ``artifact``.
        target: What to call the device; None: its model, as it says itself.

    Raises:
        ArtifactError: A document is no such thing, or none of the measurements is of this artifact.
        TargetError: The device could not run it, as the document says.
        ToolError: The runtime failed there.
    """
    if inputs is not None and artifact is None:
        raise UserInputError("--inputs with --import needs the artifact too: its outputs are compared with those there")
    found: list[MeasuredProfile] = []
    for path in documents:
        document = read_document(path)
        name = target or document.machine.get("model") or path.stem
        if artifact is None:
            found += [
                measured_profile(document, one, artifact=one.artifact.name, target=name)
                for one in document.measurements
            ]
        else:
            found.append(_compared(path, document, artifact, inputs, name))
    if not found:
        raise ArtifactError(f"{', '.join(map(str, documents))}: expected at least one measurement; there is none")
    return tuple(found)


def _compared(
    path: Path, document: MeasurementDocument, artifact: Path, inputs: Path | None, target: str
) -> MeasuredProfile:
    require_artifact(artifact)
    spec = format_of_path(str(artifact))
    measurement = _of_artifact(document, artifact, path)
    config = measurement.config
    request = ProfileRequest(
        artifact=artifact.absolute(),
        artifact_id=measurement.artifact.name,
        format=spec.name,
        open_session=spec.open_session,
        reference=inputs.absolute() if inputs is not None else None,
        device={"name": target},
        config=ProfileConfig(num_runs=config.num_runs, warmup_runs=config.warmup_runs, num_threads=config.num_threads),
        work_dir=Path(tempfile.gettempdir()),
        inspect=spec.inspect,
    )
    return run_alone(
        "edgekit.pipeline.import_profile:compare_in_child",
        ImportRequest(document=path.absolute(), request=request),
        MeasuredProfile,
        stage="import",
        timeout_s=3600,
    )


def _of_artifact(document: MeasurementDocument, artifact: Path, path: Path) -> Measurement:
    digest = digest_path(artifact)
    for one in document.measurements:
        if one.artifact.sha256 == digest:
            return one
    names = ", ".join(one.artifact.name for one in document.measurements) or "nothing"
    raise ArtifactError(f"{path}: expected a measurement of {artifact}; the digests of what is there differ: {names}")


def compare_in_child(request: ImportRequest) -> MeasuredProfile:
    """Make the profile, outputs compared where they can be."""
    document = read_document(request.document)
    measurement = _of_artifact(document, request.request.artifact, request.document)
    job = measure_job(request.request, (), 0.0)
    return job.profile_of(document, measurement)
