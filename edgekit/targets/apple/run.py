"""Profile an artifact on an Apple chip: by a clock on a Mac that has it, by a roofline elsewhere.

Written, not run: the measured half needs a Mac. What it starts (``targets/macos/measure.py``) and how its answer is
read are tested elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from edgekit.contracts import load_entry
from edgekit.errors import ArtifactError, StageTimeoutError, TargetError, ToolError, UnsupportedError
from edgekit.records import (
    ComputeUnits,
    MeasuredProfile,
    Placement,
    PlacementRequest,
    PredictedOperator,
    PredictedProfile,
    Profile,
    RuntimeInfo,
    Unit,
)
from edgekit.targets.apple.bands import band_of, read_bands
from edgekit.targets.apple.machine import chip_here, describe_chip, is_measured, why_not
from edgekit.targets.apple.roofline import Prediction, quickest
from edgekit.targets.apple.spec import AppleDevice
from edgekit.targets.estimates import estimate
from edgekit.targets.measure_job import RESULT, measure_job
from edgekit.targets.measurement import read_document
from edgekit.targets.schema import ProfileRequest

CHOICES: tuple[ComputeUnits, ...] = get_args(ComputeUnits)
MEASURE_TIMEOUT_S = 1800.0
UNIT_TITLES: dict[Unit, str] = {"cpu": "CPU", "gpu": "GPU", "neural_engine": "Neural Engine"}


def profile_apple(request: ProfileRequest) -> Profile:
    """Measure an artifact on this Mac where it has the chip, else predict its time there.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        TargetError: The device file is wrong, or the machine cannot run the artifact.
        UnsupportedError: Only a Mac with the chip could tell.
        ToolError: The measurement failed.
    """
    device = _apple(request)
    if not request.artifact.exists():
        raise ArtifactError(f"expected an artifact at {request.artifact}; there is none")
    return measured_here(request, device) if is_measured(device) else predicted(request, device)


def _apple(request: ProfileRequest) -> AppleDevice:
    try:
        return AppleDevice.model_validate(request.device)
    except ValidationError as error:
        raise TargetError(f"expected a device file of kind 'apple'; {error}") from error


def measured_here(request: ProfileRequest, device: AppleDevice) -> MeasuredProfile:
    """Measure with every choice of compute units, in a process of its own. Written, not run: it needs a Mac.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        TargetError: macOS is too old for the artifact, or its runtime is missing.
        ToolError: The runtime failed, or the measurement left no answer.
    """
    first = device.compute_units
    job = measure_job(request, (first, *(units for units in CHOICES if units != first)), MEASURE_TIMEOUT_S)
    folder = request.work_dir / "measure"
    for name, content in job.files():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    result = folder / RESULT
    result.unlink(missing_ok=True)
    command = [sys.executable, *job.arguments()]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=MEASURE_TIMEOUT_S + 60, check=False)
    except subprocess.TimeoutExpired as error:
        raise StageTimeoutError(f"measuring {request.artifact.name} took more than {MEASURE_TIMEOUT_S:g} s") from error
    if not result.is_file():
        said = done.stderr.decode("utf-8", "replace").strip()[-2000:]
        raise ToolError(f"measuring {request.artifact.name} left no result (exit status {done.returncode}): {said}")
    return job.profile(read_document(result))


def predicted(request: ProfileRequest, device: AppleDevice) -> PredictedProfile:
    """Predict the time of a Core ML artifact on a chip that is not here.

    Raises:
        ArtifactError: The artifact cannot be read.
        UnsupportedError: It is no Core ML artifact.
    """
    reason = why_not(device, request.format, "")
    if reason is not None or request.place is None:
        raise UnsupportedError(
            f"{request.artifact.name} on {device.name}",
            reason=reason or "nothing says which unit would take its operations",
            instead="a Core ML artifact, or another target",
        )
    placements = {units: _place(request.place, request.artifact, device, units) for units in CHOICES}
    times = quickest(placements, device)
    found = times[device.compute_units]
    unit = _busiest(found.operators)
    return PredictedProfile(
        artifact=request.artifact_id,
        runtime=RuntimeInfo(name="Core ML", version="not run"),
        target=device.name,
        machine=describe_chip(device),
        config=replace(request.config, num_runs=0, warmup_runs=0),
        compute_units=device.compute_units,
        latency_ms=estimate(found.latency_ms, 1.0, (), band_of(read_bands(), unit)),
        operators=found.operators,
        notes=tuple(_notes(device, placements, times)),
    )


def _place(entry: str, artifact: Path, device: AppleDevice, units: ComputeUnits) -> Placement:
    placement: Placement = load_entry(entry)(PlacementRequest(path=artifact, compute_units=units, chip=device.chip))
    return placement


def _busiest(operators: tuple[PredictedOperator, ...]) -> Unit:
    """Return the unit that takes most of the time; the CPU of a program without operations."""
    shares = _shares(operators)
    return max(shares, key=lambda unit: shares[unit]) if shares else "cpu"


def _shares(operators: tuple[PredictedOperator, ...]) -> dict[Unit, float]:
    units = dict.fromkeys(operator.unit for operator in operators)
    return {unit: sum(operator.share for operator in operators if operator.unit == unit) for unit in units}


def _notes(
    device: AppleDevice, placements: Mapping[ComputeUnits, Placement], times: Mapping[ComputeUnits, Prediction]
) -> Iterator[str]:
    """Say what a reader must know to believe the figure."""
    found = times[device.compute_units]
    yield "predicted: nothing ran; one inference in the steady state, with the chip cool and otherwise idle"
    here = chip_here()
    if here is not None:
        yield f"this Mac has {here}: it cannot measure {device.title}"
    shares = ", ".join(f"{UNIT_TITLES[unit]} {share:.0%}" for unit, share in _shares(found.operators).items())
    yield (
        f"of the time: {shares or 'nothing'}; starting units and operations {found.launch_ms:.3g} ms, "
        f"changing units {found.transfer_ms:.3g} ms (segments: {found.segments}, transfers: {found.transfers})"
    )
    others = [units for units in times if units != device.compute_units]
    yield f"with other compute units: {', '.join(f'{units} {times[units].latency_ms:.3g} ms' for units in others)}"
    if any(not operation.activation_bytes for operation in placements[device.compute_units].operations):
        yield "values whose shape is free count as nothing, so the time is too low"
