"""Profile an artifact on an emulated phone: count what its kernels execute, then model the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import ValidationError

from edgekit.errors import TargetError, UnsupportedError
from edgekit.records import EmulatedOperator, EmulatedProfile, LatencyEstimateMs, ProfileConfig
from edgekit.targets.emulated.artifact_run import WARMUP, GuestJob
from edgekit.targets.emulated.bands import band_of, read_bands
from edgekit.targets.emulated.calibration import Anchoring, Layer, anchoring, read_anchors
from edgekit.targets.emulated.cores import judged_name, load_core
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.counted import CountedRun, counted_run
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.place import CorePlace, place_of
from edgekit.targets.emulated.reads import core_digest, estimator_of
from edgekit.targets.emulated.setup import Toolchain, toolchain
from edgekit.targets.emulated.spec import SPEC, EmulatedDevice
from edgekit.targets.emulated.timing import Cycles, model_cycles
from edgekit.targets.estimates import estimate
from edgekit.targets.schema import ProfileRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """Cycles, and what anchors make of them."""

    cycles: Cycles
    latency_ms: LatencyEstimateMs
    anchoring: Anchoring


def profile_emulated(request: ProfileRequest) -> EmulatedProfile:
    """Count one inference of an artifact behind a phone's processor, and estimate its time there.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        TargetError: The device file, its core table or its stored measurements are wrong.
        UnsupportedError: Several threads, a runtime that the guest does not have, an operator that it lacks, or tools
            of emulation that are missing.
        ToolError: The guest crashed, looped, ran out of memory, or the core simulator failed.
    """
    device = _emulated(request)
    _refuse_threads(request.config)
    tools = toolchain()
    core = load_core(device.primary_cluster.core)
    job = GuestJob(request=request, tools=tools, persona=make_persona(core, tools))
    run = counted_run(job)
    placed = PlacedCore(core, place_of(device))
    timed = _timed(job, run, device, placed, request.model) if request.model != "counts" else None
    cycles = timed.cycles if timed is not None else None
    return EmulatedProfile(
        artifact=request.artifact_id,
        runtime=run.runtime,
        target=device.name,
        machine=_machine(device, placed.place, tools),
        persona=f"{job.persona.core}-{job.persona.key}",
        model=request.model,
        config=replace(request.config, num_runs=1, warmup_runs=WARMUP),
        latency_ms=timed.latency_ms if timed is not None else None,
        cycles=round(cycles.total) if cycles is not None else None,
        instructions=run.instructions,
        load_instructions=run.load_instructions,
        counts=run.counts,
        memory_bytes=run.memory_bytes,
        operators=_operators(run, placed.place, timed),
        parity=run.parity,
        notes=tuple(_notes(run, timed)),
    )


def _emulated(request: ProfileRequest) -> EmulatedDevice:
    try:
        # through JSON: the schema is strict, and a request's device has lists where the schema has tuples
        return EmulatedDevice.model_validate(request.device)
    except ValidationError as error:
        raise TargetError(f"expected a device file of kind 'emulated'; {error}") from error


def _refuse_threads(config: ProfileConfig) -> None:
    refusal = SPEC.one_thread
    if config.num_threads > 1 and refusal is not None:
        raise UnsupportedError(
            f"num_threads: {config.num_threads} on {SPEC.title}", reason=refusal.reason, instead=refusal.instead
        )


def _timed(job: GuestJob, run: CountedRun, device: EmulatedDevice, placed: PlacedCore, layer: Layer) -> _Timed:
    estimator = estimator_of(device, layer)
    cycles = model_cycles(job, run, placed, layer, estimator)
    anchors = anchoring(read_anchors(device.name), layer, estimator)
    band = band_of(read_bands(), judged_name(placed.core), layer, anchored=bool(anchors.anchors))
    unanchored_ms = cycles.total / placed.place.cycles_per_ms
    return _Timed(
        cycles=cycles, latency_ms=estimate(unanchored_ms, anchors.factor, anchors.anchors, band), anchoring=anchors
    )


def _operators(run: CountedRun, place: CorePlace, timed: _Timed | None) -> tuple[EmulatedOperator, ...]:
    """Return the operators, with their times and shares of the time where it was modelled."""
    if timed is None:
        return tuple(one.operator for one in run.operators)
    factor = timed.anchoring.factor / place.cycles_per_ms
    whole_ms = timed.latency_ms.median or 1.0
    pairs = zip(run.operators, timed.cycles.by_operator, strict=True)
    return tuple(
        replace(one.operator, time_ms=cycles * factor, share=cycles * factor / whole_ms) for one, cycles in pairs
    )


def _machine(device: EmulatedDevice, place: CorePlace, tools: Toolchain) -> dict[str, str]:
    """Say what was presented, and with what: all that a reader needs to judge the figures."""
    cluster = device.primary_cluster
    levels = (("L1", place.l1d_kib), ("L2", place.l2_kib), ("L3", place.l3_kib))
    return {
        "cpu": f"{cluster.part} at {place.clock_mhz:g} MHz ({cluster.name}), one thread",
        "soc": device.soc,
        "core": cluster.core,
        "core_table": core_digest(device),
        "clock": f"{place.clock_mhz:g} MHz",
        "caches": ", ".join(f"{name} {kib} KiB" for name, kib in levels if kib),
        "memory": f"{place.memory_bandwidth_gb_s:g} GB/s a core, {place.memory_latency_ns:g} ns",
        "emulator": f"qemu-aarch64 {tools.qemu_version}",
    }


def _notes(run: CountedRun, timed: _Timed | None) -> Iterator[str]:
    yield from run.notes
    if timed is not None:
        yield from timed.cycles.notes
        yield from timed.anchoring.notes
