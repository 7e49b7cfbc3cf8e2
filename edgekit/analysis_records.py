"""What an analysis of one artifact found. Re-exported by :mod:`edgekit.records`, from where others import them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Compute = Literal["declared", "fp16", "fp32"]
"""What an evaluator rounds to float16: what the artifact declares so, every result, or none."""
HalfCompute = Literal["declared", "fp16"]
"""Those in which something is rounded."""

Unit = Literal["cpu", "gpu", "neural_engine"]
"""What a chip runs operations on."""
ComputeUnits = Literal["all", "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly"]
"""Which units Core ML may use, in the words of ``MLComputeUnits``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLoss:
    """What half precision does to one result of one operation.

    Attributes:
        name: Of the operation, as ``keep_float32`` of an export rule takes it.
        type: Of the operation, in the format's words.
        sqnr_db: Of the result against the same program in float32, with all that was lost before it; None where it
            holds infinity or NaN, or the result has another shape.
        own_sqnr_db: Of this operation alone, on rounded float32 inputs; None where that gives infinity or NaN, or
            cannot be told.
        max_abs: Greatest magnitude in float32.
        overflows: Infinity or NaN where float32 has numbers.
        starts_overflow: And none of its inputs has: the operation itself leaves the range of float16.
        layer: The layer of the source model that it comes from; None where that is not known.
    """

    name: str
    type: str
    sqnr_db: float | None
    own_sqnr_db: float | None
    max_abs: float
    overflows: bool
    starts_overflow: bool
    layer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPrecision:
    """What half precision does to one artifact, on real samples.

    Attributes:
        compute: ``declared``: rounded where the artifact declares float16; ``fp16``: rounded everywhere, which shows
            what a float32 artifact would lose.
        samples: How many were run. Operations are looked at on the worst of them.
        outputs: Output -> SQNR in dB against the same program in float32, over all samples; None: not finite.
        first_overflow: The first operation that leaves the range of float16; None: none does.
        worst: The operations that lose most by themselves, those that overflow first; at most ten.
        keep_in_float32: The proposal: which operations, or layers of the source model, to keep in float32 so that
            the outputs are finite and lose little; empty: none need be.
        kept_in_float32: Which are kept in float32 already, where the artifact computes in float16 otherwise.
    """

    compute: HalfCompute
    samples: int
    outputs: dict[str, float | None]
    first_overflow: str | None
    worst: tuple[OperationLoss, ...] = ()
    keep_in_float32: tuple[str, ...] = ()
    kept_in_float32: tuple[str, ...] = ()


PlacementKind = Literal["predicted", "measured"]
"""``predicted``: by published rules; ``measured``: what Core ML's own planner answered on a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRequest:
    """Which artifact is to be placed, and on what.

    Attributes:
        path: The artifact.
        compute_units: Which units may be used.
        chip: Such as ``m1`` or ``a17-pro``: rules that hold for some chips only are decided for it. None: an operation
            is refused where any chip that is known refuses it.
    """

    path: Path
    compute_units: ComputeUnits = "all"
    chip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPlacement:
    """Which units of a chip can take one operation, and which one is expected to.

    Attributes:
        index: Position in execution order, as ``Operator.index``.
        name: As ``Operator.name``.
        type: As ``Operator.type``.
        units: Those that can take it and may be used; never empty: the CPU takes everything.
        preferred: The one that is expected to.
        reasons: Unit -> why it cannot take it, one sentence; units that may not be used are left out.
        sources: Where the reasons are from: an address, or ``estimate`` / ``recalled`` and why.
        segment: Which segment it is part of: operations that follow each other on one unit.
        compute_dtype: What it computes in; ``none``: it only moves data.
        macs: Multiply-accumulates of one inference.
        weight_bytes: Bytes of constants it reads.
        activation_bytes: Bytes of other values it reads and writes; 0 where a shape is free.
        cost: Its share of the whole (0 to 1) as the planner estimates it; None: it does not say.
    """

    index: int
    name: str
    type: str
    units: tuple[Unit, ...]
    preferred: Unit
    segment: int
    compute_dtype: str
    macs: int
    weight_bytes: int
    activation_bytes: int
    reasons: dict[Unit, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which unit of a chip takes which operation of one artifact.

    Attributes:
        kind: Predicted by rules, or answered by Core ML on a device.
        compute_units: Which units may be used.
        chip: For which it holds; None: for none in particular.
        operations: In execution order.
        segments: How many runs of operations on one unit there are.
        transfers: How many values are read on another unit than the one that made them.
        transfer_bytes: Their size; values of free shape left out.
        shares: Unit -> share of the multiply-accumulates (of the operations where there are none) that it is expected
            to take, 0 to 1.
        takes: Unit -> the share that it could take.
        notes: What a reader must know to believe it.
    """

    kind: PlacementKind
    compute_units: ComputeUnits
    chip: str | None
    operations: tuple[OperationPlacement, ...]
    segments: int
    transfers: int
    transfer_bytes: int
    shares: dict[Unit, float]
    takes: dict[Unit, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
