"""Ask Core ML itself where it would run each operation: ``MLComputePlan``, on macOS 14.4 or newer.

Written against ``coremltools.models.compute_plan`` of coremltools 9, and not run: there was no Mac. What turns a plan
into a placement (``measured``) is tested with plans built of that module's own records.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.coreml.placement.facts import OperationFacts, read_facts
from edgekit.formats.coreml.placement.planner import number_segments, transfers
from edgekit.formats.coreml.placement.predict import ALLOWED, unit_shares
from edgekit.formats.light_imports import import_coremltools
from edgekit.records import ComputeUnits, OperationPlacement, Placement, PlacementRequest, Unit

_COMPUTE_UNITS: Mapping[ComputeUnits, str] = {
    "all": "ALL",
    "cpuAndNeuralEngine": "CPU_AND_NE",
    "cpuAndGPU": "CPU_AND_GPU",
    "cpuOnly": "CPU_ONLY",
}
"""``MLComputeUnits`` -> ``coremltools.ComputeUnit``."""
_DEVICES: Mapping[str, Unit] = {
    "MLCPUComputeDevice": "cpu",
    "MLGPUComputeDevice": "gpu",
    "MLNeuralEngineComputeDevice": "neural_engine",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOperation:
    """What Core ML says of one operation.

    Attributes:
        name: Of its first result.
        preferred: The unit that would run it.
        supported: Those that could.
        cost: Its share of the whole; None: it does not say.
    """

    name: str
    preferred: Unit
    supported: tuple[Unit, ...]
    cost: float | None


def ask(request: PlacementRequest) -> Placement:
    """Ask Core ML of this Mac for its plan of a package.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: This is no Mac, or the package is of another kind.
        ToolError: Core ML could not compile the package or make a plan.
    """
    if platform.system() != "Darwin":
        raise UnsupportedError(
            f"Core ML's own plan of {request.path.name} on {platform.system()}",
            reason="MLComputePlan exists on macOS 14.4 and newer only",
            instead="the predicted placement, or a Mac over ssh (edgekit profile --target ssh:user@mac)",
        )
    facts = read_facts(request.path)
    coremltools = import_coremltools()
    from coremltools.models.compute_plan import MLComputePlan

    unit = getattr(coremltools.ComputeUnit, _COMPUTE_UNITS[request.compute_units])
    with tempfile.TemporaryDirectory(prefix="edgekit-plan-") as folder:
        compiled = str(Path(folder) / "model.mlmodelc")
        try:
            coremltools.models.utils.compile_model(str(request.path), compiled)
            plan = MLComputePlan.load_from_path(path=compiled, compute_units=unit)
        except (RuntimeError, ValueError, OSError) as error:
            raise ToolError(f"Core ML makes no plan of {request.path.name}: {error}") from error
        planned = tuple(read_plan(plan))
    return measured(facts, planned, request.compute_units, request.chip)


def read_plan(plan: Any) -> Iterator[PlannedOperation]:
    """Yield what a plan says of each operation, constants left out.

    Args:
        plan: ``MLComputePlan``.

    Raises:
        ToolError: It is the plan of no ML program.
    """
    program = plan.model_structure.program
    if program is None or not program.functions:
        raise ToolError("expected the plan of an ML program; received that of another kind of model")
    functions = program.functions
    name = "main" if "main" in functions else next(iter(sorted(functions)))
    yield from _read_block(plan, functions[name].block)


def _read_block(plan: Any, block: Any) -> Iterator[PlannedOperation]:
    for operation in block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None and operation.outputs:
            cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
            yield PlannedOperation(
                name=operation.outputs[0].name,
                preferred=_unit(usage.preferred_compute_device),
                supported=tuple(sorted({_unit(device) for device in usage.supported_compute_devices})),
                cost=None if cost is None else float(cost.weight),
            )
        for inner in operation.blocks:
            yield from _read_block(plan, inner)


def _unit(device: object) -> Unit:
    name = type(device).__name__
    if name not in _DEVICES:
        raise ToolError(f"expected a compute device among {', '.join(_DEVICES)}; received {name}")
    return _DEVICES[name]


def measured(
    facts: Sequence[OperationFacts], planned: Iterable[PlannedOperation], compute_units: ComputeUnits, chip: str | None
) -> Placement:
    """Make a placement of a plan.

    Args:
        facts: The operations of the package, in execution order.
        planned: What Core ML says; operations are recognised by the names of their results.
        compute_units: Which units it was allowed.
        chip: Of the Mac.
    """
    by_name = {item.name: item for item in planned}
    told = [by_name.get(item.operator.name) for item in facts]
    placed = _carried_on([item.preferred if item is not None else None for item in told])
    segments = number_segments(facts, placed)
    operations = tuple(
        OperationPlacement(
            index=item.operator.index,
            name=item.operator.name,
            type=item.operator.type,
            units=(plan.supported or (plan.preferred,)) if plan is not None else (unit,),
            preferred=unit,
            segment=segment,
            compute_dtype=item.operator.compute_dtype,
            macs=item.operator.macs,
            weight_bytes=item.operator.weight_bytes,
            activation_bytes=item.activation_bytes,
            cost=plan.cost if plan is not None else None,
        )
        for item, plan, unit, segment in zip(facts, told, placed, segments, strict=True)
    )
    moved = transfers(facts, placed)
    shares, takes = unit_shares(operations, ALLOWED[compute_units])
    silent = sum(plan is None for plan in told)
    return Placement(
        kind="measured",
        compute_units=compute_units,
        chip=chip,
        operations=operations,
        segments=max(segments, default=-1) + 1,
        transfers=moved.count,
        transfer_bytes=moved.bytes,
        shares=shares,
        takes=takes,
        notes=(f"the plan says nothing of {silent} operations: each counts as run where the one before it runs",)
        if silent
        else (),
    )


def _carried_on(units: Sequence[Unit | None]) -> tuple[Unit, ...]:
    """Fill what is not known with the unit before it, at the start with the CPU."""
    found: list[Unit] = []
    last: Unit = "cpu"
    for unit in units:
        last = unit or last
        found.append(last)
    return tuple(found)
