"""Profile an artifact on a machine that ssh reaches."""

from __future__ import annotations

from pydantic import ValidationError

from edgekit.errors import TargetError, ToolError
from edgekit.records import MeasuredProfile
from edgekit.targets.measure_job import RESULT, measure_job
from edgekit.targets.measurement import parse_document
from edgekit.targets.schema import ProfileRequest
from edgekit.targets.ssh.spec import SshDevice
from edgekit.targets.ssh.transport import RemoteCommand, run_remotely


def profile_over_ssh(request: ProfileRequest) -> MeasuredProfile:
    """Copy, measure there, bring back, compare.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        MissingToolError: There is no ssh here.
        TargetError: The machine cannot be reached, or cannot run the artifact.
        StageTimeoutError: It took too long.
        ToolError: The runtime failed there.
    """
    device = _ssh(request)
    job = measure_job(request, device.compute_units, device.timeout_s)
    answer = run_remotely(
        device,
        RemoteCommand(files=job.files(), arguments=job.arguments(), results=(RESULT,), timeout_s=device.timeout_s),
    )
    if RESULT not in answer.results:
        raise ToolError(f"{device.name}: measuring ended with status {answer.status} and no result: {answer.log}")
    return job.profile(parse_document(answer.results[RESULT], device.name))


def _ssh(request: ProfileRequest) -> SshDevice:
    try:
        return SshDevice.model_validate(request.device)
    except ValidationError as error:
        raise TargetError(f"expected a device file of kind 'ssh'; {error}") from error
