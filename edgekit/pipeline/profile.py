"""Profile one artifact that exists, outside a build."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import asdict
from pathlib import Path

from edgekit.contracts import FormatSpec
from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats import format_of_path
from edgekit.pipeline.devices import check_model, check_threads, decided_by, refusal
from edgekit.pipeline.inspect import require_artifact
from edgekit.pipeline.plan import tool_versions
from edgekit.pipeline.stages import StageCall, StageRunner, ignore_events
from edgekit.records import AnyProfile, ModelLayer, Profile, ProfileConfig
from edgekit.store.atomic import digest_path
from edgekit.store.build_folder import BuildFolder
from edgekit.store.cache import StageCache, cache_root
from edgekit.targets import Device, ProfileRequest, find_device, target_spec


def profile_artifact(
    path: Path,
    target: str,
    config: ProfileConfig,
    *,
    inputs: Path | None,
    use_cache: bool,
    model: ModelLayer | None = None,
) -> Profile:
    """Profile an artifact on a device.

    Args:
        path: The artifact.
        target: The device's name.
        config: Runs, warm-up, threads.
        inputs: ``.npz`` with ``input_<i>`` (and, from a build, what the models said of them); None: generated inputs.
        use_cache: Answer from the cache where the same was profiled before.
        model: How an emulated target turns counts into time; None: ``static``. Refused for a target with a clock.

    Raises:
        ArtifactError: No such artifact.
        TargetError: No such device, or it cannot be used from here.
        UnsupportedError: The device, or this machine, cannot run the format, or not on so many threads.
        ToolError: The runtime failed.
    """
    require_artifact(path)
    spec = format_of_path(str(path))
    device = find_device(target)
    check_model(device, model)
    check_threads([device], config.num_threads, "--num-threads")
    reason = refusal(device, spec.name, None) or spec.backends[0].not_here
    if reason is not None:
        raise UnsupportedError(
            f"profiling {spec.title} on {target}", reason=reason, instead="a target that runs it, or another format"
        )
    call = _profile_call(path, spec, device, config, inputs, model or "static")
    logs = BuildFolder(Path(tempfile.mkdtemp(prefix="edgekit-profile-")))
    runner = StageRunner(StageCache(cache_root()), logs, ignore_events, force=not use_cache)
    return run_profile(runner, call, device)


def run_profile(runner: StageRunner, call: StageCall, device: Device) -> Profile:
    """Run the stage that profiles on a device, and return the record of the kind of number that came out.

    Raises:
        EdgekitError: The stage failed.
        ToolError: It gave a kind of number that this kind of target does not promise.
    """
    profile = runner.run(call, AnyProfile)
    promised = target_spec(device.kind, place=device.name).kinds
    if profile.kind not in promised:
        raise ToolError(f"{device.name} gave a {profile.kind} profile; it promises {' or '.join(promised)}")
    return profile


def _profile_call(
    path: Path, spec: FormatSpec, device: Device, config: ProfileConfig, inputs: Path | None, model: ModelLayer
) -> StageCall:
    return StageCall(
        name=f"profile:{path.name}@{device.name}",
        reads={
            "artifact": digest_path(path),
            "inputs": digest_path(inputs) if inputs is not None else None,
            "device": device.model_dump(mode="json"),
            "config": asdict(config),
            "machine": [platform.node(), platform.machine(), platform.release()],
            "tools": tool_versions(spec.distributions),
            **decided_by(device, model),
        },
        entry=target_spec(device.kind, place=device.name).profile,
        request=lambda workspace: ProfileRequest(
            artifact=path.absolute(),
            artifact_id=path.name,
            format=spec.name,
            open_session=spec.open_session,
            reference=inputs.absolute() if inputs is not None else None,
            device=device.model_dump(mode="json"),
            config=config,
            work_dir=workspace.scratch,
            model=model,
            inspect=spec.inspect,
            place=spec.place,
        ),
        timeout_s=3600,
    )
