"""What there is to know of each operation of a saved program, for rules to ask."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.evaluator.graph import Block, Constant, Function, Graph, Operation, Reference, ValueType
from edgekit.formats.coreml.evaluator.load import load_specification
from edgekit.formats.coreml.operators import element_bits, read_operators
from edgekit.formats.coreml.package import MODEL, read_package
from edgekit.records import Operator

STATES = ("read_state", "write_state", "coreml_update_state")
"""Operations on what a stateful program keeps between runs."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that an operation reads or writes.

    Attributes:
        name: In the program; empty for a literal.
        parameter: What it is bound to; empty for results.
        type: As declared.
        constant: Whether the file holds it, compressed or not.
    """

    name: str
    parameter: str
    type: ValueType
    constant: bool = False

    @property
    def bytes(self) -> int:
        """Its size; 0 where a size is free."""
        sizes = self.type.shape
        if sizes is None or None in sizes:
            return 0
        return -(-math.prod(size or 0 for size in sizes) * element_bits(self.type.dtype) // 8)


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """An operation with the types of what it reads and writes, and its settings.

    Attributes:
        operator: The record: index, name, multiply-accumulates, bytes of constants, what it computes in.
        operation: As in the file.
        inputs: Tensors that it reads, settings (strides, axes) among them as constants.
        outputs: What it gives.
        settings: Parameter -> its constant value, where it has one.
        inside: Type of the control-flow operation whose block it is in; None: in none.
        listed_shapes: Whether the function takes several listed shapes.
    """

    operator: Operator
    operation: Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    settings: Mapping[str, Constant]
    inside: str | None
    listed_shapes: bool

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """What is not constant of what it reads, and what it writes."""
        return (*(tensor for tensor in self.inputs if not tensor.constant), *self.outputs)

    @property
    def activation_bytes(self) -> int:
        """Bytes of its activations."""
        return sum(tensor.bytes for tensor in self.activations)

    def input(self, parameter: str) -> Tensor | None:
        """Return what is bound to a parameter, the first where there are several."""
        return next((tensor for tensor in self.inputs if tensor.parameter == parameter), None)

    def integers(self, parameter: str) -> tuple[int, ...] | None:
        """Return a constant parameter as integers; None where it is not given, or computed."""
        found = self.settings.get(parameter)
        if found is None or not isinstance(found.value, np.ndarray) or found.value.dtype.kind not in "iub":
            return None
        return tuple(int(item) for item in found.value.reshape(-1))

    def word(self, parameter: str) -> str | None:
        """Return a constant parameter that is a word."""
        found = self.settings.get(parameter)
        return found.value if found is not None and isinstance(found.value, str) else None


def read_facts(path: Path) -> tuple[OperationFacts, ...]:
    """Read a package, and list what is to be known of each operation that computes, in execution order.

    Constants and the operations that decompress them are part of the operations that read them.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: It holds no ML program, or one of a newer operation set.
    """
    specification = read_package(path)
    graph = load_specification(specification, path / MODEL.parent, executable=False)
    operators = read_operators(specification, graph.default)
    found = tuple(_Reader(graph, operators).read())
    if len(found) != len(operators):
        raise ArtifactError(f"expected {len(operators)} operations in {path.name}; read {len(found)}. Export it again.")
    return found


class _Reader:
    """Walks a function with the types of all values seen so far."""

    def __init__(self, graph: Graph, operators: tuple[Operator, ...]) -> None:
        self._function: Function = graph.functions[graph.default]
        self._operators = iter(operators)
        self._types = {item.name: item.type for item in self._function.inputs}
        self._constants: dict[str, Constant | None] = {}
        allowed = graph.allowed.get(graph.default, {})
        self._listed = any(len(item.shapes) > 1 for item in allowed.values())

    def read(self) -> Iterator[OperationFacts]:
        yield from self._block(self._function.block, None)

    def _block(self, block: Block, inside: str | None) -> Iterator[OperationFacts]:
        self._types.update((item.name, item.type) for item in block.inputs)
        for operation in block.operations:
            self._types.update((item.name, item.type) for item in operation.outputs)
            if operation.type == "const" or operation.type.startswith("constexpr_"):
                self._remember(operation)
                continue
            operator = next(self._operators, None)
            if operator is None:
                return
            yield self._facts(operation, operator, inside)
            for inner in operation.blocks:
                yield from self._block(inner, operation.type)

    def _remember(self, operation: Operation) -> None:
        value = operation.arguments.get("val", ())
        literal = value[0] if value and isinstance(value[0], Constant) else None
        for output in operation.outputs:
            self._constants[output.name] = literal

    def _facts(self, operation: Operation, operator: Operator, inside: str | None) -> OperationFacts:
        inputs: list[Tensor] = []
        settings: dict[str, Constant] = {}
        for parameter, bindings in operation.arguments.items():
            for binding in bindings:
                if isinstance(binding, Reference):
                    constant = binding.name in self._constants
                    literal = self._constants.get(binding.name)
                    inputs.append(Tensor(binding.name, parameter, self._types[binding.name], constant))
                else:
                    literal = binding
                    inputs.append(Tensor("", parameter, binding.type, constant=True))
                if literal is not None:
                    settings.setdefault(parameter, literal)
        outputs = tuple(Tensor(item.name, "", item.type) for item in operation.outputs)
        return OperationFacts(operator, operation, tuple(inputs), outputs, settings, inside, self._listed)
