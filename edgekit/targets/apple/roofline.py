"""Predict the time of a program on an Apple chip: the roofline of each operation's unit, and what starting costs.

Of each operation the longer of two (Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009):

- arithmetic: ``2 * multiply-accumulates / (peak of the unit in the operation's precision * sustained share)``
- memory: what it reads and writes, at the rate of the unit's own memory where it fits there, else of main memory.

Weights come from main memory in every inference. On the Neural Engine they are fetched ahead while other operations
compute (Apple's own table has no gain from smaller weights alone: ResNet-50 takes 1.52 ms with float16 weights and
1.43 ms with 2-bit ones on iPhone 14 Pro, coremltools' opt-palettization-perf), so a run of operations there takes the
longer of its work and of all its weights. On the other units they count with the operation that reads them.

To that come ``operation_us`` for each operation, ``launch_us`` for each segment (a run of operations on one unit), and
the bytes that change units. Activation functions, normalisation, quantization and what only renames a value are part of
the operation before them, and cost nothing by themselves. Nothing is fitted here: all figures are the device file's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from edgekit.records import Bound, ComputeUnits, OperationPlacement, Placement, PredictedOperator
from edgekit.targets.apple.spec import AppleDevice, Cpu, Gpu, NeuralEngine, Processor

FUSED = frozenset(
    {"batch_norm", "cast", "clamped_relu", "clip", "dequantize", "elu", "expand_dims", "gelu", "identity"}
    | {"leaky_relu", "linear_activation", "prelu", "quantize", "relu", "relu6", "reshape", "scaled_tanh", "sigmoid"}
    | {"sigmoid_hard", "silu", "softplus", "softsign", "squeeze", "tanh", "thresholded_relu"}
)
"""Types of operation that cost nothing by themselves."""
INTEGERS = ("int8", "uint8")
WITHIN: Mapping[ComputeUnits, tuple[ComputeUnits, ...]] = {
    "all": ("all", "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly"),
    "cpuAndNeuralEngine": ("cpuAndNeuralEngine", "cpuOnly"),
    "cpuAndGPU": ("cpuAndGPU", "cpuOnly"),
    "cpuOnly": ("cpuOnly",),
}
"""A choice of compute units -> itself, and those that allow some of its units only."""
_PER_MS = 1e6
"""10^9 a second is 10^6 a millisecond."""
_US_PER_MS = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Milliseconds of one inference, and what they are made of.

    Attributes:
        transfer_ms: Of them, those in which values change units.
        launch_ms: Of them, those that starting units and operations costs.
        segments, transfers: How many runs of operations on one unit there are, and values that change units.
        operators: In execution order; their times and the transfers add up to the whole.
    """

    latency_ms: float
    transfer_ms: float
    launch_ms: float
    segments: int
    transfers: int
    operators: tuple[PredictedOperator, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What one operation takes."""

    operation: OperationPlacement
    arithmetic_ms: float
    memory_ms: float
    launch_ms: float
    moved: int

    @property
    def work_ms(self) -> float:
        return max(self.arithmetic_ms, self.memory_ms)

    @property
    def total_ms(self) -> float:
        return self.work_ms + self.launch_ms

    @property
    def bound(self) -> Bound:
        if self.launch_ms > self.work_ms:
            return "launch"
        return "compute" if self.arithmetic_ms >= self.memory_ms else "memory"


def predict(placement: Placement, device: AppleDevice) -> Prediction:
    """Predict one inference in the steady state: loaded, warm, nothing else running.

    Args:
        placement: Which unit takes which operation.
        device: The chip.
    """
    by_segment = sorted(placement.operations, key=lambda operation: operation.segment)
    segments = (tuple(found) for _, found in groupby(by_segment, key=lambda operation: operation.segment))
    costs = [cost for segment in segments for cost in _segment_costs(segment, device)]
    transfer_ms = 2 * placement.transfer_bytes / (device.memory.bandwidth_gb_s * _PER_MS)  # written, then read
    latency_ms = sum(cost.total_ms for cost in costs) + transfer_ms
    return Prediction(
        latency_ms=latency_ms,
        transfer_ms=transfer_ms,
        launch_ms=sum(cost.launch_ms for cost in costs),
        segments=placement.segments,
        transfers=placement.transfers,
        operators=tuple(_operator(cost, latency_ms) for cost in _in_order(costs)),
    )


def quickest(placements: Mapping[ComputeUnits, Placement], device: AppleDevice) -> dict[ComputeUnits, Prediction]:
    """Predict each choice of compute units, none slower than a narrower choice of the same units.

    A placement is made with round figures of the class of chips; Core ML knows the chip, and may leave a unit idle that
    it is allowed to use. Where the chip's figures make a narrower choice quicker, the wider one is taken to equal it.

    Args:
        placements: One for each choice of compute units.
        device: The chip.
    """
    found = {units: predict(placement, device) for units, placement in placements.items()}
    return {
        units: min((found[choice] for choice in WITHIN[units] if choice in found), key=lambda one: one.latency_ms)
        for units in found
    }


def _in_order(costs: Iterable[_Cost]) -> list[_Cost]:
    return sorted(costs, key=lambda cost: cost.operation.index)


def _operator(cost: _Cost, whole_ms: float) -> PredictedOperator:
    return PredictedOperator(
        name=cost.operation.name,
        type=cost.operation.type,
        unit=cost.operation.preferred,
        time_ms=cost.total_ms,
        share=cost.total_ms / whole_ms if whole_ms else 0.0,
        macs=cost.operation.macs,
        bytes=cost.moved,
        bound=cost.bound,
    )


def _segment_costs(operations: Sequence[OperationPlacement], device: AppleDevice) -> list[_Cost]:
    """Cost a run of operations on one unit; the first one carries what starting it costs."""
    processor = device.processor(operations[0].preferred)
    fetched_ahead = isinstance(processor, NeuralEngine)
    costs = [_cost(operation, processor, with_weights=not fetched_ahead) for operation in operations]
    if fetched_ahead:
        costs = list(_wait_for_weights(costs, processor))
    launched_ms = costs[0].launch_ms + processor.launch_us / _US_PER_MS
    return [replace(costs[0], launch_ms=launched_ms), *costs[1:]]


def _wait_for_weights(costs: Sequence[_Cost], processor: Processor) -> Iterator[_Cost]:
    """Spread the time in which a run waits for weights over the operations that read them."""
    weights = sum(cost.operation.weight_bytes for cost in costs)
    waiting_ms = weights / (processor.stream_gb_s * _PER_MS) - sum(cost.work_ms for cost in costs)
    for cost in costs:
        own = cost.operation.weight_bytes
        if waiting_ms > 0 and own:
            cost = replace(cost, memory_ms=cost.work_ms + waiting_ms * own / weights)
        yield replace(cost, moved=cost.moved + own)


def _cost(operation: OperationPlacement, processor: Processor, *, with_weights: bool) -> _Cost:
    if operation.type in FUSED and not operation.macs:
        return _Cost(operation=operation, arithmetic_ms=0.0, memory_ms=0.0, launch_ms=0.0, moved=0)
    weights = operation.weight_bytes if with_weights else 0
    values = operation.activation_bytes
    if operation.compute_dtype in INTEGERS:
        values //= 2  # declared float16 between the pair of quantize and dequantize, kept in int8
    fits = values <= processor.on_chip_kib * 1024
    moved = weights if fits else weights + values
    memory_ms = moved / (processor.stream_gb_s * _PER_MS)
    if fits:
        memory_ms = max(memory_ms, values / (processor.on_chip_gb_s * _PER_MS))
    return _Cost(
        operation=operation,
        arithmetic_ms=2 * operation.macs / (_peak(operation.compute_dtype, processor) * _PER_MS),
        memory_ms=memory_ms,
        launch_ms=processor.operation_us / _US_PER_MS,
        moved=moved,
    )


def _peak(dtype: str, processor: Processor) -> float:
    """Return the sustained 10^9 operations a second in a precision."""
    peak = processor.gflops_fp16
    if dtype == "float32" and isinstance(processor, Cpu | Gpu):
        peak = processor.gflops_fp32
    elif dtype in INTEGERS and isinstance(processor, NeuralEngine):
        peak = processor.gops_int8 or peak
    return peak * processor.sustained_share
