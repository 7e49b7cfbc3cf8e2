"""The table of operations, and what an operation is called with."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.evaluator.graph import Named, Operation


@dataclass(slots=True)
class TensorList:
    """The value of a list: tensors of one shape, None where nothing was written."""

    items: list[Tensor | None]
    shape: tuple[int | None, ...] | None
    dtype: torch.dtype


@dataclass(slots=True)
class State:
    """What a stateful program keeps between runs."""

    value: Tensor


Value = Tensor | str | TensorList | State | tuple["Value", ...] | np.ndarray | dict[str, "Value"]
"""A value at run time; strings are words, object arrays of them several words."""
Settings = bool | int | float | str | list["Settings"]
Result = Value | Sequence[Value]
Executed = Callable[["Call"], Result]


@dataclass(frozen=True, slots=True)
class Entry:
    """An operation that the evaluator knows.

    Attributes:
        name: Its name in programs.
        since: The first iOS whose operation set has it.
        family: The file that holds it.
        execute: What it does.
        exact: It moves or counts values: its results need no rounding when its inputs are rounded.
        constant: Its inputs are constants: it is carried out once, when the program is prepared.
    """

    name: str
    since: int
    family: str
    execute: Executed
    exact: bool
    constant: bool


_TABLE: dict[str, Entry] = {}


def operation(
    *names: str, since: int = 15, exact: bool = False, constant: bool = False
) -> Callable[[Executed], Executed]:
    """Register a function as what executes operations of these names.

    Args:
        names: In programs.
        since: The first iOS that has them.
        exact: See ``Entry``.
        constant: See ``Entry``.
    """

    def register(execute: Executed) -> Executed:
        family = execute.__module__.rpartition(".")[2]
        for name in names:
            _TABLE[name] = Entry(name, since, family, execute, exact, constant)
        return execute

    return register


@cache
def known_operations() -> Mapping[str, Entry]:
    """Return the table, with every family loaded."""
    from edgekit.formats.coreml.evaluator import operations

    for module in sorted(pkgutil.iter_modules(operations.__path__), key=lambda module: module.name):
        importlib.import_module(f"{operations.__name__}.{module.name}")
    return dict(sorted(_TABLE.items()))


@dataclass(slots=True)
class Call:
    """One execution of an operation: its arguments, by name, in the form that is asked for.

    Attributes:
        operation: What is executed.
        opset: The first iOS of the program's operation set: semantics of some operations changed.
        values: Arguments that are tensors, lists, states or words; those given several times are tuples.
        settings: Small constants as Python values.
        run_block: Executes a block of ``cond`` or ``while_loop`` with values for its inputs.
    """

    operation: Operation
    opset: int
    values: Mapping[str, Value]
    settings: Mapping[str, Settings]
    run_block: Callable[[int, Sequence[Value]], tuple[Value, ...]] = field(repr=False)

    @property
    def outputs(self) -> tuple[Named, ...]:
        """Names and declared types of what it gives."""
        return self.operation.outputs

    def dtype(self, index: int = 0) -> str:
        """Return the declared dtype of an output."""
        return self.outputs[index].type.dtype

    def value(self, name: str) -> Value:
        """Return an argument as it is.

        Raises:
            ArtifactError: The operation has no such argument.
        """
        found = self.values.get(name)
        if found is None:
            given = ", ".join(sorted(self.values)) or "none"
            raise ArtifactError(f"{self.operation}: expected the argument {name!r}; it has {given}.")
        return found

    def tensor(self, name: str = "x") -> Tensor:
        """Return an argument that is a tensor."""
        found = self.value(name)
        if isinstance(found, tuple) and len(found) == 1:
            found = found[0]
        if not isinstance(found, Tensor):
            raise ArtifactError(f"{self.operation}: expected a tensor for {name!r}; received {type(found).__name__}.")
        return found

    def maybe(self, name: str) -> Tensor | None:
        """Return an optional argument that is a tensor."""
        return self.tensor(name) if name in self.values else None

    def several(self, name: str) -> tuple[Tensor, ...]:
        """Return an argument that is one tensor or more."""
        found = self.value(name)
        items = found if isinstance(found, tuple) else (found,)
        if not all(isinstance(item, Tensor) for item in items):
            raise ArtifactError(f"{self.operation}: expected tensors for {name!r}.")
        return tuple(item for item in items if isinstance(item, Tensor))

    def setting(self, name: str) -> Settings | None:
        """Return an argument as a Python value, whether it is constant or computed; None when it is not given."""
        if name in self.settings:
            return self.settings[name]
        found = self.values.get(name)
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, (Tensor, np.ndarray)):
            return found.tolist()
        if isinstance(found, tuple):
            return [item.tolist() if isinstance(item, Tensor) else str(item) for item in found]
        raise ArtifactError(f"{self.operation}: expected a number, a word or several for {name!r}.")

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return an argument as integers, one for each item."""
        found = self.setting(name)
        if found is None:
            return list(default) if default is not None else self._missing(name)
        items = found if isinstance(found, list) else [found]
        return [int(item) for item in items]  # type: ignore[arg-type]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an argument as one integer."""
        return self.integers(name, None if default is None else (default,))[0]

    def number(self, name: str, default: float | None = None) -> float:
        """Return an argument as one number."""
        found = self.setting(name)
        if found is None:
            return default if default is not None else self._missing(name)
        single = found[0] if isinstance(found, list) else found
        return float(single)  # type: ignore[arg-type]

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an argument as a truth value."""
        found = self.setting(name)
        single = found[0] if isinstance(found, list) and found else found
        return default if single is None else bool(single)

    def flags(self, name: str, count: int) -> list[bool]:
        """Return an argument as truth values, all False when it is not given."""
        found = self.setting(name)
        if found is None:
            return [False] * count
        return [bool(item) for item in (found if isinstance(found, list) else [found])]

    def word(self, name: str, default: str | None = None) -> str:
        """Return an argument as a word."""
        found = self.setting(name)
        if found is None:
            return default if default is not None else self._missing(name)
        return str(found[0] if isinstance(found, list) else found)

    def has(self, name: str) -> bool:
        """Whether an argument is given."""
        return name in self.values

    def refuse(self, expected: str, received: object) -> ArtifactError:
        """Return the error for an argument that the operation cannot have."""
        return ArtifactError(f"{self.operation}: expected {expected}; received {received!r}.")

    def _missing(self, name: str) -> NoReturn:
        raise ArtifactError(f"{self.operation}: expected the argument {name!r}; it is not given.")
