"""Profile an artifact on this machine, in this process: the caller starts a fresh one for each profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgekit.contracts import Session, load_entry
from edgekit.errors import ArtifactError, TargetError, ToolError, UnsupportedError
from edgekit.profile.affinity import pinned
from edgekit.profile.feed import first_sample, generated_inputs
from edgekit.profile.measure import measure
from edgekit.records import MeasuredProfile, OperatorTime
from edgekit.targets.host.machine import busy_notes, describe_machine
from edgekit.targets.host.spec import HostDevice
from edgekit.targets.schema import ProfileRequest

Array = NDArray[np.generic]

OPERATOR_RUNS = 20
"""Runs that operator times are averaged over, in a session of their own: a profiler slows down what it watches."""


def profile_on_host(request: ProfileRequest) -> MeasuredProfile:
    """Load, run and time an artifact.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        TargetError: The device file names cores that this process may not use.
        ToolError: The runtime failed.
    """
    device, config = _host(request), request.config
    machine = describe_machine()  # before the load that is our own
    notes = list(busy_notes())
    with pinned(config.num_threads, device.cpus) as cpus:
        machine["pinned_to"] = f"cores {','.join(map(str, cpus))}" if cpus else "not pinned"
        if cpus and len(cpus) < config.num_threads:
            notes.append(
                f"{config.num_threads} threads share {len(cpus)} cores: figures are those of {len(cpus)} cores"
            )
        measured = measure(
            load_entry(request.open_session),
            _existing(request.artifact),
            lambda session: _inputs(request, session),
            num_threads=config.num_threads,
            num_runs=config.num_runs,
            warmup_runs=config.warmup_runs,
        )
        operators: tuple[OperatorTime, ...] = ()
        if config.profile_ops:
            operators, problem = _operator_times(request)
            notes.extend([problem] if problem else [])
    return MeasuredProfile(
        artifact=request.artifact_id,
        runtime=measured.runtime,
        target=device.name,
        machine=machine,
        config=config,
        latency_ms=measured.latency_ms,
        memory_bytes=measured.memory_bytes,
        operators=operators,
        notes=(*notes, *measured.notes),
    )


def _host(request: ProfileRequest) -> HostDevice:
    try:
        return HostDevice.model_validate(request.device)
    except ValidationError as error:
        raise TargetError(f"expected a device file of kind 'host'; {error}") from error


def _existing(artifact: Path) -> Path:
    if not artifact.exists():
        raise ArtifactError(f"expected an artifact at {artifact}; there is none")
    return artifact


def _inputs(request: ProfileRequest, session: Session) -> Sequence[Array]:
    if request.reference is not None:
        return first_sample(request.reference, len(session.inputs))
    return generated_inputs(session.inputs, request.config.seed)


def _operator_times(request: ProfileRequest) -> tuple[tuple[OperatorTime, ...], str | None]:
    """Return operator times, or why there are none: a profiler that fails does not take the latencies with it."""
    with load_entry(request.open_session)(request.artifact, request.config.num_threads) as session:
        try:
            return session.operator_times(_inputs(request, session), OPERATOR_RUNS), None
        except UnsupportedError as error:
            return (), f"no operator times: {error.reason}"
        except ToolError as error:
            return (), f"no operator times: {error.message}"
