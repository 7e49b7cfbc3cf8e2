"""What a profile holds. Three kinds of number never mix: each kind is a record of its own, and says which it is.

``measured``: a clock on the real thing. ``emulated``: counted while the real kernels ran under emulation, then
modelled. ``predicted``: nothing ran; reckoned from the program and published figures of the chip. Re-exported by
:mod:`edgekit.records`, which is where other modules import them from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgekit.analysis_records import ComputeUnits, Placement, Unit

SQNR_CEILING_DB = 300.0
"""The SQNR that is reported for bit-identical tensors, whose true value is infinite and has no JSON number."""

Status = Literal["pass", "fail", "not run"]
ProfileKind = Literal["measured", "emulated", "predicted"]
Bound = Literal["compute", "memory", "launch"]
"""What an operation's predicted time goes into: arithmetic, moving bytes, or starting it."""
ModelLayer = Literal["counts", "static", "trace"]
MODEL_LAYERS: tuple[ModelLayer, ...] = ("counts", "static", "trace")
"""How counts become time: not at all (exact), by the core's tables, or by replaying the trace through the core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """How far one output is from its reference.

    Attributes:
        max_abs_error, mean_abs_error: In the output's own unit.
        sqnr_db: ``10 log10(sum(ref^2) / sum((ref - out)^2))``, at most ``SQNR_CEILING_DB``.
        cosine: Cosine similarity of the flattened outputs.
        top1_agreement: Share of samples whose arg-max agrees (last axis); None for outputs without classes.
        max_steps, mean_steps: Error in quantization steps of the program's output; None where it is not quantized.
        exact: Share of elements that are equal (to a hundredth of a step where there is a step).
        within_one_step: Share of elements at most one step away.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    sqnr_db: float
    cosine: float
    top1_agreement: float | None
    max_steps: float | None
    mean_steps: float | None
    exact: float
    within_one_step: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """What executed an artifact."""

    name: str
    version: str
    delegates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileConfig:
    """How a profile was taken."""

    num_runs: int = 50
    warmup_runs: int = 10
    num_threads: int = 1
    seed: int = 0
    profile_ops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMs:
    """Milliseconds of one inference. ``init`` loads and prepares, ``first`` is the first run after it."""

    init: float
    first: float
    mean: float
    median: float
    min: float
    max: float
    p5: float
    p90: float
    p95: float
    p99: float
    std: float
    samples: tuple[float, ...] = ()
    init_cold: float | None = None

    @property
    def p50(self) -> float:
        """The median, under the name that budgets use."""
        return self.median


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """Resident memory above the process's baseline: after loading (``init``) and at its highest (``peak``)."""

    init: int
    peak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """Time of one operator (of the runtime, after its own fusions) in one inference."""

    name: str
    type: str
    delegated: bool
    time_ms: float
    share: float
    reason: str | None = None
    macs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeUnitTimes:
    """One artifact timed with one choice of compute units.

    Attributes:
        compute_units: The choice, in the words of ``MLComputeUnits``.
        memory_bytes: None where the system did not tell.
    """

    compute_units: ComputeUnits
    latency_ms: LatencyMs
    memory_bytes: MemoryBytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredProfile:
    """A clock on the real thing.

    Attributes:
        latency_ms, memory_bytes: With every unit allowed, where there is a choice of compute units.
        notes: What a reader must know to believe the figures: noise, threads that share a core, a load that was not
            cold.
        compute_units: The same for each choice of compute units that was timed (Core ML only).
        placement: Which unit took which operation, as Core ML itself answered; None where it was not asked.
        parity: What the device computed, against this machine and the model; None where that was not compared.
    """

    kind: Literal["measured"] = "measured"
    artifact: str
    runtime: RuntimeInfo
    target: str
    machine: dict[str, str]
    config: ProfileConfig
    latency_ms: LatencyMs
    memory_bytes: MemoryBytes
    operators: tuple[OperatorTime, ...] = ()
    notes: tuple[str, ...] = ()
    compute_units: tuple[ComputeUnitTimes, ...] = ()
    placement: Placement | None = None
    parity: DeviceParity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionCounts:
    """What one inference executed, exactly.

    Attributes:
        groups: Class of instruction (``scalar``, ``branch``, ``vector_float``, ``dot_product``, ``load`` ...) -> how
            many were executed. Every instruction is in one class.
        load_bytes, store_bytes: Bytes that loads and stores moved, whatever level of memory they hit.
        loads_by_width, stores_by_width: Bytes an access -> how many accesses.
    """

    groups: dict[str, int]
    load_bytes: int
    store_bytes: int
    loads_by_width: dict[int, int] = field(default_factory=dict)
    stores_by_width: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Instructions of all classes."""
        return sum(self.groups.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyEstimateMs:
    """Milliseconds of one inference as a model of the hardware has them. Never a measurement.

    Attributes:
        median: The estimate: a model has no spread, so it stands for the median.
        mean: The same figure.
        low, high: The band in which the true time is expected: ``median / (1 + error)`` to ``median / (1 - error)``,
            a smaller error at the upper end where estimates are known to err less downwards; ``high`` is None where
            that is 1 or more.
        error: The error that the band allows for, as a share of the true time.
        basis: What the error rests on: which held-out rows, anchored on a measurement of the device or not.
        unanchored: What the model alone says; the same as ``median`` where no measurement scaled it.
        anchors: The measurements of the device that scaled the estimate; empty: none did.
    """

    median: float
    mean: float
    unanchored: float
    low: float
    high: float | None
    error: float
    basis: str
    anchors: tuple[str, ...] = ()

    @property
    def p50(self) -> float:
        """The median, under the name that budgets use."""
        return self.median


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMemoryBytes:
    """Memory of the runtime on the guest.

    Attributes:
        init: What loading took from the heap, None where the runner cannot tell.
        peak: The most that the heap held, from before the load to the end of the counted inference.
        arena: Of it, the memory that the runtime planned for tensors; None where the runtime does not tell.
        resident: The most that was resident, the runtime's libraries included; None where not known.
    """

    init: int | None
    peak: int
    arena: int | None = None
    resident: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedOperator:
    """One operator of the runtime (after its own fusions) in one inference on the guest.

    Attributes:
        name: That of the layer it computes where this is certain, else the runtime's.
        time_ms: Modelled; None where the profile has counts only.
        share: Of the time, of the instructions where there is no time.
        instructions: Exact.
        counts: The same by class, and the bytes moved.
        kernel: The microkernel that executed most of it; None where the library has no names.
        kernels: Every function that took part -> its instructions.
        node: The layer of the model that it computes; None where the runtime's order does not tell.
    """

    name: str
    type: str
    delegated: bool
    time_ms: float | None
    share: float
    instructions: int
    counts: InstructionCounts
    reason: str | None = None
    macs: int | None = None
    kernel: str | None = None
    kernels: dict[str, int] = field(default_factory=dict)
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceParity:
    """What the device's kernels computed, against this machine's and against the model.

    Attributes:
        status: ``fail`` where the kernels of the two machines disagree by more than rounding.
        reason: Why it failed or was not run.
        samples: How many were compared.
        versus_host: Each output against the same artifact on this machine.
        versus_source, versus_program: Against the model, and the program the artifact was lowered from.
    """

    status: Status
    reason: str | None
    samples: int
    versus_host: tuple[OutputParity, ...] = ()
    versus_source: tuple[OutputParity, ...] = ()
    versus_program: tuple[OutputParity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedProfile:
    """Counted while the real kernels ran under emulation, then modelled.

    Attributes:
        machine: What was presented and with what: core, clock, caches, emulator, versions.
        persona: Which CPU the runtime saw: profiles of one persona executed the very same instructions.
        model: How counts became time.
        config: One inference is counted after ``warmup_runs``.
        latency_ms, cycles: None where ``model`` is ``counts``.
        instructions: Of one inference in the steady state. Exact: the same every time.
        load_instructions: Of loading and preparing.
    """

    kind: Literal["emulated"] = "emulated"
    artifact: str
    runtime: RuntimeInfo
    target: str
    machine: dict[str, str]
    persona: str
    model: ModelLayer
    config: ProfileConfig
    latency_ms: LatencyEstimateMs | None
    cycles: int | None
    instructions: int
    load_instructions: int
    counts: InstructionCounts
    memory_bytes: GuestMemoryBytes
    operators: tuple[EmulatedOperator, ...] = ()
    parity: DeviceParity | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedOperator:
    """One operation of the program, as the roofline of the unit that is expected to take it has it.

    Attributes:
        name: Of the operation in the artifact, or of the layer that it comes from.
        unit: The unit that is expected to take it: ``cpu``, ``gpu``, ``neural_engine``.
        time_ms: The longer of arithmetic and memory, and its part of what starting costs.
        share: Of the whole.
        macs: Multiply-accumulates.
        bytes: What it moves to and from memory.
        bound: What most of the time goes into.
    """

    name: str
    type: str
    unit: Unit
    time_ms: float
    share: float
    macs: int
    bytes: int
    bound: Bound


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedProfile:
    """Nothing ran: reckoned from the program's operations and the published figures of a chip.

    Attributes:
        machine: The chip, and the figures that the prediction rests on.
        config: As it was asked for; a prediction has no runs.
        compute_units: Which units Core ML may use.
        latency_ms: With its band, and what the band rests on.
        memory_bytes: Not predicted.
    """

    kind: Literal["predicted"] = "predicted"
    artifact: str
    runtime: RuntimeInfo
    target: str
    machine: dict[str, str]
    config: ProfileConfig
    compute_units: ComputeUnits
    latency_ms: LatencyEstimateMs
    operators: tuple[PredictedOperator, ...] = ()
    memory_bytes: None = None
    notes: tuple[str, ...] = ()


Profile = MeasuredProfile | EmulatedProfile | PredictedProfile
"""Wherever profiles travel; ``kind`` tells which one it is."""
