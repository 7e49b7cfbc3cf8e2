"""Make steps of a graph: what is constant is made ready once, and values are dropped after their last use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.evaluator.graph import (
    Binding,
    Block,
    Constant,
    Function,
    Literals,
    Named,
    Operation,
    Reference,
)
from edgekit.formats.coreml.evaluator.registry import (
    Call,
    Entry,
    Result,
    Settings,
    Value,
    known_operations,
)
from edgekit.records import Compute

FAILURES = (
    *(RuntimeError, ValueError, LookupError, TypeError),
    *(ArithmeticError, AttributeError, AssertionError, MemoryError),
)
"""What torch, numpy and Python raise of an operation whose arguments make no sense together."""
_LARGEST_SETTING = 4096
"""Elements up to which an integer constant is also kept as Python values (strides, axes, shapes)."""
_HELD_IN = {
    "bool": torch.bool, "float16": torch.float32, "float32": torch.float32, "float64": torch.float32,
    "bfloat16": torch.float32, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "uint8": torch.uint8, "uint16": torch.int32, "uint32": torch.int64, "uint64": torch.int64, "int4": torch.int8,
    "uint1": torch.uint8, "uint2": torch.uint8, "uint3": torch.uint8, "uint4": torch.uint8, "uint6": torch.uint8,
}  # fmt: skip


def held_in(dtype: str) -> torch.dtype:
    """Return the torch dtype that holds a declared dtype.

    Raises:
        ArtifactError: No such dtype is known.
    """
    if dtype not in _HELD_IN:
        raise ArtifactError(f"expected a dtype among {', '.join(_HELD_IN)}; received {dtype!r}")
    return _HELD_IN[dtype]


def round_half(value: Tensor) -> Tensor:
    """Round to the nearest float16, ties to even; beyond 65504 to infinity. The result is float32 again."""
    return value.half().float()


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What results are rounded to."""

    compute: Compute

    def rounds(self, dtype: str) -> bool:
        """Whether a value of this declared dtype is rounded to float16."""
        if self.compute == "declared":
            return dtype == "float16"
        return self.compute == "fp16" and dtype.startswith("float")

    def settle(self, value: Value, declared: Named, *, exact: bool) -> Value:
        """Turn a result into the declared dtype, rounded."""
        if not isinstance(value, Tensor):
            return value
        wanted = held_in(declared.type.dtype)
        if value.dtype != wanted:
            value = value.to(wanted)
        if not exact and wanted is torch.float32 and self.rounds(declared.type.dtype):
            return round_half(value)
        return value

    def constant(self, constant: Constant) -> Value:
        """Make a constant ready to be computed with."""
        return self._ready(constant.value, constant.type.dtype)

    def _ready(self, value: Literals, dtype: str) -> Value:
        if isinstance(value, str):
            return value
        if isinstance(value, tuple):
            return tuple(self._ready(item, dtype) for item in value)
        if isinstance(value, dict):
            return {key: self._ready(item, dtype) for key, item in value.items()}
        if value.dtype == object:
            return value
        tensor = torch.from_numpy(_plain(value)).to(held_in(str(value.dtype)))
        rounded = tensor.dtype is torch.float32 and value.dtype != np.float16 and self.rounds("float32")
        return round_half(tensor) if rounded else tensor


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array that torch can take: contiguous, writable, of a dtype that it has."""
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        return array.astype(np.int64).reshape(array.shape)
    return np.require(array, requirements=["C", "W"]).reshape(array.shape)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ready to run.

    Attributes:
        operation: From the file.
        entry: What executes it.
        constants: Arguments that are constant, those that are bound by name among them.
        references: Parameter -> names of computed values, constants between them; one alone stands for itself.
        settings: Small constants as Python values.
        release: Values that nothing reads afterwards.
        blocks: Of ``cond`` and ``while_loop``.
    """

    operation: Operation
    entry: Entry
    constants: Mapping[str, Value]
    references: Mapping[str, tuple[str | Value, ...]]
    settings: Mapping[str, Settings]
    release: tuple[str, ...]
    blocks: tuple[Steps, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A block, ready to run."""

    inputs: tuple[Named, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function, ready to run.

    Attributes:
        constants: Those that are looked up by name in a run: outputs of blocks, and words among several values. Steps
            hold all others that they read.
    """

    function: Function
    arithmetic: Arithmetic
    steps: Steps
    constants: dict[str, Value]


def prepare(function: Function, compute: Compute) -> Prepared:
    """Make a function ready to run with one arithmetic."""
    return _Preparation(function, Arithmetic(compute)).result()


class _Preparation:
    def __init__(self, function: Function, arithmetic: Arithmetic) -> None:
        self._function = function
        self._arithmetic = arithmetic
        self._constants: dict[str, Value] = {}
        self._settings: dict[str, Settings] = {}

    def result(self) -> Prepared:
        steps = self._block(self._function.block, keep=frozenset())
        read = _names_read(steps) | set(steps.outputs)
        kept = {name: value for name, value in self._constants.items() if name in read}
        return Prepared(self._function, self._arithmetic, steps, kept)

    def _block(self, block: Block, keep: frozenset[str]) -> Steps:
        computed = [operation for operation in block.operations if not self._is_constant(operation)]
        releases = _releases(computed, block, keep)
        steps = tuple(self._step(operation, release) for operation, release in zip(computed, releases, strict=True))
        return Steps(block.inputs, steps, block.outputs)

    def _is_constant(self, operation: Operation) -> bool:
        """Carry out an operation whose result is the same in every run; whether it is one."""
        if operation.type == "const":
            bindings = operation.arguments.get("val", ())
            binding = bindings[0] if len(bindings) == 1 else None
            if not isinstance(binding, Constant):
                raise ArtifactError(f"{operation}: expected a value in the file. Export the package again.")
            self._keep(operation.outputs[0].name, binding)
            return True
        entry = known_operations()[operation.type]
        if not entry.constant:
            return False
        step = self._step(operation, ())
        call = Call(operation, self._function.opset, self._values(step), step.settings, no_blocks)
        try:
            found = several(entry.execute(call))
        except FAILURES as error:
            raise ArtifactError(f"{operation} cannot be carried out: {error}. Export the package again.") from error
        if len(found) < len(operation.outputs):
            raise ArtifactError(f"{operation} declares {len(operation.outputs)} outputs and gives {len(found)}.")
        for declared, value in zip(operation.outputs, found, strict=False):
            self._constants[declared.name] = self._arithmetic.settle(value, declared, exact=entry.exact)
        return True

    def _values(self, step: Step) -> Mapping[str, Value]:
        values = dict(step.constants)
        for name, items in step.references.items():
            found = [self._constants.get(item) if isinstance(item, str) else item for item in items]
            if any(item is None for item in found):
                raise ArtifactError(f"{step.operation}: expected constants only; {name!r} is computed.")
            values[name] = found[0] if len(found) == 1 else tuple(found)  # type: ignore[assignment, arg-type]
        return values

    def _bound(self, binding: Binding) -> str | Value:
        """Return what is bound: the name of a computed value, else the constant; a word stays the name it goes by."""
        if isinstance(binding, Constant):
            return self._arithmetic.constant(binding)
        found = self._constants.get(binding.name)
        return binding.name if found is None or isinstance(found, str) else found

    def _keep(self, name: str, constant: Constant) -> None:
        self._constants[name] = self._arithmetic.constant(constant)
        found = _setting(constant)
        if found is not None:
            self._settings[name] = found

    def _step(self, operation: Operation, release: tuple[str, ...]) -> Step:
        constants: dict[str, Value] = {}
        references: dict[str, tuple[str | Value, ...]] = {}
        settings: dict[str, Settings] = {}
        for parameter, bindings in operation.arguments.items():
            if len(bindings) == 1 and isinstance(bindings[0], Constant):
                constants[parameter] = self._arithmetic.constant(bindings[0])
                found = _setting(bindings[0])
                if found is not None:
                    settings[parameter] = found
                continue
            bound = tuple(self._bound(binding) for binding in bindings)
            if len(bound) == 1 and not isinstance(bound[0], str):
                constants[parameter] = bound[0]
            else:
                references[parameter] = bound
            if len(bindings) == 1 and isinstance(bindings[0], Reference) and bindings[0].name in self._settings:
                settings[parameter] = self._settings[bindings[0].name]
        keep = frozenset(name for name in _read_inside(operation))
        blocks = tuple(self._block(block, keep) for block in operation.blocks)
        entry = known_operations()[operation.type]
        return Step(operation, entry, constants, references, settings, release, blocks)


def no_blocks(_index: int, _values: Sequence[Value]) -> tuple[Value, ...]:
    """Stand for the blocks of an operation that has none."""
    return ()


def several(result: Result) -> tuple[Value, ...]:
    """Return the results of an operation as a tuple, whether it gave one or more."""
    return tuple(cast(Sequence[Value], result)) if isinstance(result, (tuple, list)) else (cast(Value, result),)


def _setting(constant: Constant) -> Settings | None:
    value = constant.value
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.size <= _LARGEST_SETTING:
        found: Settings = value.tolist()
        return found
    return None


def _read_inside(operation: Operation) -> set[str]:
    """Names that an operation's blocks read; values of the enclosing block among them."""
    names: set[str] = set()
    for block in operation.blocks:
        names.update(block.outputs)
        for inner in block.operations:
            names.update(inner.references())
            names |= _read_inside(inner)
    return names


def _releases(operations: list[Operation], block: Block, keep: frozenset[str]) -> list[tuple[str, ...]]:
    """For each operation, the values of this block that nothing reads after it."""
    own = {output.name for operation in operations for output in operation.outputs}
    own |= {item.name for item in block.inputs}
    seen = set(block.outputs) | keep
    releases: list[tuple[str, ...]] = []
    for operation in reversed(operations):
        read = {*operation.references(), *_read_inside(operation)}
        read |= {output.name for output in operation.outputs}  # what nobody reads goes at once
        releases.append(tuple(sorted((read & own) - seen)))
        seen |= read
    return releases[::-1]


def _names_read(steps: Steps) -> set[str]:
    names: set[str] = set()
    for step in steps.steps:
        names.update(item for items in step.references.values() for item in items if isinstance(item, str))
        for block in step.blocks:
            names |= _names_read(block) | set(block.outputs)
    return names


def empty_state(declared: Named) -> Tensor:
    """Return what a state holds before the first run: zeros.

    Raises:
        ArtifactError: Its shape is free.
    """
    if declared.type.shape is None or None in declared.type.shape:
        raise ArtifactError(f"state {declared.name!r}: expected a fixed shape; received {declared.type}.")
    return torch.zeros([size or 0 for size in declared.type.shape], dtype=held_in(declared.type.dtype))
