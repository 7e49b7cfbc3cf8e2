"""An ML program as a graph of our own: what was read from the file, with nothing of the protobuf left in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.coreml.evaluator.interface import AllowedShapes

Kind = Literal["tensor", "list", "state", "dictionary", "tuple"]
Literals = NDArray[np.generic] | str | tuple["Literals", ...] | dict[str, "Literals"]
"""A constant: an array, a word, several of them, or a dictionary."""

OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}
"""Name of an operation set in the file -> the first iOS that has it."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """The declared type of a value.

    Attributes:
        kind: A tensor, or a list or state of tensors.
        dtype: Of its elements: ``float16``, ``int32``, ``uint4``, ``bool``, ``string`` ...
        shape: Sizes, None where free; None as a whole: the rank is free too.
    """

    kind: Kind
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        sizes = "*" if self.shape is None else ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{'' if self.kind == 'tensor' else self.kind + ' of '}{self.dtype} [{sizes}]"


@dataclass(frozen=True, slots=True)
class Named:
    """A value with its name."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that the file holds."""

    type: ValueType
    value: Literals


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a value that an input of the function, or an earlier operation, gives."""

    name: str


Binding = Constant | Reference


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        type: ``conv``, ``const``, ``while_loop`` ...
        name: Its name in the file, or that of its first output.
        place: Function, block and index, for messages.
        arguments: Parameter -> what is bound to it; several for ``concat``'s values and the like.
        outputs: What it gives.
        blocks: Of ``cond`` and ``while_loop``.
    """

    type: str
    name: str
    place: str
    arguments: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[Named, ...]
    blocks: tuple[Block, ...] = ()

    def __str__(self) -> str:
        return f"operation {self.name!r} ({self.type}, {self.place})"

    def references(self) -> Iterator[str]:
        """Names that it reads itself, those that its blocks read left out."""
        for bindings in self.arguments.values():
            for binding in bindings:
                if isinstance(binding, Reference):
                    yield binding.name


@dataclass(frozen=True, slots=True)
class Block:
    """Operations in the order of execution."""

    inputs: tuple[Named, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the program.

    Attributes:
        name: ``main``, or another of a package with several.
        opset: The first iOS that has its operations: 15, 16 ...
        inputs: States among them.
        block: What it does.
    """

    name: str
    opset: int
    inputs: tuple[Named, ...]
    block: Block


@dataclass(frozen=True, slots=True)
class Graph:
    """Every function of a package, and the one that runs unless another is named.

    Attributes:
        functions: By name.
        default: The one that runs unless another is named.
        allowed: Function -> input -> the shapes that the package's description allows.
    """

    functions: Mapping[str, Function]
    default: str = "main"
    allowed: Mapping[str, Mapping[str, AllowedShapes]] = field(default_factory=dict)


def walk(block: Block) -> Iterator[Operation]:
    """Yield every operation, those in blocks after the operation that holds them."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from walk(inner)
