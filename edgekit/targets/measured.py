"""Turn the document of a measurement on another machine into a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from statistics import median

from edgekit.errors import ArtifactError, EdgekitError, TargetError, ToolError
from edgekit.profile.statistics import NOISY_SPREAD, relative_spread, summarize
from edgekit.records import (
    ComputeUnitTimes,
    DeviceParity,
    LatencyMs,
    MeasuredProfile,
    MemoryBytes,
    OperationPlacement,
    Placement,
    ProfileConfig,
    RuntimeInfo,
    Unit,
)
from edgekit.targets.measurement import Measurement, MeasurementDocument, Plan, Problem, UnitRun

_ERRORS: dict[str, type[EdgekitError]] = {
    "artifact_unreadable": ArtifactError,
    "inputs_unreadable": ArtifactError,
    "wrong_system": TargetError,
    "system_too_old": TargetError,
    "runtime_missing": TargetError,
}
"""Whose fault it was; whatever is not listed is the tools'."""


def measured_profile(
    document: MeasurementDocument,
    measurement: Measurement,
    *,
    artifact: str,
    target: str,
    seed: int = 0,
    parity: DeviceParity | None = None,
    notes: Sequence[str] = (),
) -> MeasuredProfile:
    """Make the profile of one artifact.

    The figures are those of the first choice of compute units that was timed, as a rule ``all``; the others stand
    beside them.

    Args:
        document: Says on which machine.
        measurement: Of the artifact.
        artifact: Its name in reports.
        target: The device's name.
        seed: Of generated inputs.
        parity: How its outputs compare, where that is known.
        notes: What else a reader must know.

    Raises:
        TargetError: The machine cannot run the artifact: another system, too old, a package missing.
        ArtifactError: The artifact or the inputs could not be read there.
        ToolError: The runtime failed, crashed or ran too long.
    """
    if measurement.error is not None or measurement.runtime is None:
        raise problem_error(measurement.error, target)
    first = measurement.timed[0]
    runtime, config = measurement.runtime, measurement.config
    machine = {**document.machine, **document.conditions}
    machine["cpu"] = machine.pop("chip", machine.get("model", "unknown"))
    if runtime.package:
        machine["runtime_package"] = runtime.package
    machine["measured_by"] = f"{document.tool.name} {document.tool.version}"
    return MeasuredProfile(
        artifact=artifact,
        runtime=RuntimeInfo(name=runtime.name, version=runtime.version, delegates=runtime.delegates),
        target=target,
        machine=machine,
        config=ProfileConfig(
            num_runs=config.num_runs, warmup_runs=config.warmup_runs, num_threads=config.num_threads, seed=seed
        ),
        latency_ms=_latency(first),
        memory_bytes=_memory(first),
        notes=(*notes, *_notes(document, measurement)),
        compute_units=tuple(
            ComputeUnitTimes(compute_units=run.compute_units, latency_ms=_latency(run), memory_bytes=_memory(run))
            for run in measurement.timed
            if run.compute_units != "cpu"
        ),
        placement=measured_placement(measurement.plan, document.machine.get("chip")) if measurement.plan else None,
        parity=parity,
    )


def problem_error(problem: Problem | None, place: str) -> EdgekitError:
    """Return the error to raise for what another machine reports."""
    if problem is None:
        return ToolError(f"{place} reports neither a figure nor an error")
    kind = _ERRORS.get(problem.code, ToolError)
    return kind(f"{place}: {problem.message}")


def measured_placement(plan: Plan, chip: str | None) -> Placement:
    """Return Core ML's own plan as a placement.

    It says nothing of sizes, so that shares are those of the operations, and transfers count places where the unit
    changes.
    """
    units = [operation.preferred for operation in plan.operations]
    changes = [units[index] != units[index - 1] for index in range(1, len(units))]
    segments = list(accumulate(changes, initial=0))
    counts: Counter[Unit] = Counter(units)
    operations = tuple(
        OperationPlacement(
            index=index,
            name=operation.name,
            type=operation.type,
            units=operation.supported or (operation.preferred,),
            preferred=operation.preferred,
            segment=segments[index],
            compute_dtype="unknown",
            macs=0,
            weight_bytes=0,
            activation_bytes=0,
            cost=operation.cost,
        )
        for index, operation in enumerate(plan.operations)
    )
    return Placement(
        kind="measured",
        compute_units=plan.compute_units,
        chip=chip,
        operations=operations,
        segments=sum(changes) + 1 if units else 0,
        transfers=sum(changes),
        transfer_bytes=0,
        shares={unit: count / len(units) for unit, count in counts.items()},
        notes=("MLComputePlan names units, not sizes: shares are of operations, transfer bytes are not known",),
    )


def _latency(run: UnitRun) -> LatencyMs:
    warm = run.load_ms[1:] or run.load_ms
    return summarize(
        run.samples_ms,
        init_ms=median(warm),
        first_ms=run.first_ms or 0.0,
        init_cold_ms=run.load_ms[0] if len(run.load_ms) > 1 else None,
    )


def _memory(run: UnitRun) -> MemoryBytes:
    if run.memory is None:
        raise ArtifactError("expected the memory of a run that was timed; received none")
    init = max(run.memory.after_load - run.memory.baseline, 0)
    return MemoryBytes(init=init, peak=max(run.memory.peak - run.memory.baseline, init))


def _notes(document: MeasurementDocument, measurement: Measurement) -> Iterator[str]:
    yield from measurement.notes
    first = measurement.timed[0]
    if measurement.runs[0] is not first:
        yield f"the figures are those of {first.compute_units}, the first choice of compute units that could be timed"
    for run in measurement.runs:
        if run.error is not None:
            yield f"{run.compute_units} was not timed: {run.error.message}"
    spread = relative_spread(first.samples_ms)
    if spread > NOISY_SPREAD:
        yield f"noisy: the runs spread by {spread:.0%} of their median; close other work there and measure again"
    yield from _condition_notes(document.conditions)
    if first.compute_units != "cpu":
        yield (
            "init_cold is the first load in a fresh process; what the system had cached of the compiled model is not "
            "known. Memory is that of the process, without what the Neural Engine's driver holds"
        )


def _condition_notes(conditions: dict[str, str]) -> Iterator[str]:
    if conditions.get("low_power_mode") == "on":
        yield "low power mode was on: clocks are lowered"
    if "battery" in conditions.get("power", "").lower():
        yield "it ran on battery"
    thermal = conditions.get("thermal", "nominal")
    if thermal != "nominal":
        yield f"the machine was hot: thermal state {thermal}"
