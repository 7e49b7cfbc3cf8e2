"""Profile one artifact that exists, outside a build."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgekit.errors import UnsupportedError
from edgekit.formats import format_of_path
from edgekit.pipeline.inspect import require_artifact
from edgekit.pipeline.plan import tool_versions
from edgekit.pipeline.stages import StageCall, StageRunner, ignore_events
from edgekit.records import MeasuredProfile, ProfileConfig
from edgekit.store.atomic import digest_path
from edgekit.store.build_folder import BuildFolder
from edgekit.store.cache import StageCache, cache_root
from edgekit.targets import ProfileRequest, find_device, target_spec


def profile_artifact(
    path: Path, target: str, config: ProfileConfig, *, inputs: Path | None, use_cache: bool
) -> MeasuredProfile:
    """Time an artifact on a device.

    Args:
        path: The artifact.
        target: The device's name.
        config: Runs, warm-up, threads.
        inputs: ``.npz`` with ``input_<i>``; None: generated inputs.
        use_cache: Answer from the cache where the same was measured before on this machine.

    Raises:
        ArtifactError: No such artifact.
        TargetError: No such device.
        UnsupportedError: This machine cannot run the format.
        ToolError: The runtime failed.
    """
    require_artifact(path)
    spec = format_of_path(str(path))
    device = find_device(target)
    reason = spec.backends[0].not_here
    if reason is not None and device.kind == "host":
        raise UnsupportedError(
            f"profiling {spec.title} on {target}", reason=reason, instead="a target that runs it, or another format"
        )
    call = StageCall(
        name=f"profile:{path.name}@{device.name}",
        reads={
            "artifact": digest_path(path),
            "inputs": digest_path(inputs) if inputs is not None else None,
            "device": device.model_dump(mode="json"),
            "config": asdict(config),
            "machine": [platform.node(), platform.machine(), platform.release()],
            "tools": tool_versions(spec.distributions),
        },
        entry=target_spec(device.kind, place=target).profile,
        request=lambda workspace: ProfileRequest(
            artifact=path.absolute(),
            artifact_id=path.name,
            format=spec.name,
            open_session=spec.open_session,
            reference=inputs.absolute() if inputs is not None else None,
            device=device.model_dump(mode="json"),
            config=config,
            work_dir=workspace.scratch,
        ),
        timeout_s=3600,
    )
    logs = BuildFolder(Path(tempfile.mkdtemp(prefix="edgekit-profile-")))
    return StageRunner(StageCache(cache_root()), logs, ignore_events, force=not use_cache).run(call, MeasuredProfile)
