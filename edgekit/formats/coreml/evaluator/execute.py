"""Run a function of a package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.errors import ArtifactError, DataError, ToolError, nearest
from edgekit.formats.coreml.evaluator.constants import NUMPY
from edgekit.formats.coreml.evaluator.graph import Function, Graph, Named
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.evaluator.prepare import (
    FAILURES,
    Prepared,
    Step,
    Steps,
    empty_state,
    no_blocks,
    prepare,
    several,
)
from edgekit.formats.coreml.evaluator.registry import Call, State, Value
from edgekit.records import Compute

Array = NDArray[np.generic]
Observer = Callable[[Step, Call, tuple[Value, ...]], None]
"""Called after each operation with what it was called with and what it gave, rounded."""
States = dict[str, State]


class Evaluator:
    """Executes one function of a saved ML program.

    Args:
        source: The package, or its graph when it is loaded already.
        function: Of a package with several; None: the default one.
        compute: What results are rounded to: see the package's docstring.

    Raises:
        ArtifactError: The package is damaged, or has no such function.
        UnsupportedError: An operation that the evaluator does not know.

    Example:
        >>> Evaluator(Path("model.mlpackage"), compute="fp32").run({"image": image})["scores"]  # doctest: +SKIP
    """

    def __init__(self, source: Path | Graph, *, function: str | None = None, compute: Compute = "declared") -> None:
        graph = source if isinstance(source, Graph) else load(source)
        name = function or graph.default
        if name not in graph.functions:
            raise ArtifactError(f"the package has no function {name!r}. {nearest(name, graph.functions)}")
        self._prepared: Prepared = prepare(graph.functions[name], compute)
        self._allowed = graph.allowed.get(name, {})
        self._declared = {item.name: item.type for item in self.function.inputs}
        for step in self._prepared.steps.steps:
            self._declared.update((item.name, item.type) for item in step.operation.outputs)

    @property
    def function(self) -> Function:
        """What is executed."""
        return self._prepared.function

    @property
    def inputs(self) -> tuple[Named, ...]:
        """Inputs of the function, states left out."""
        return tuple(item for item in self.function.inputs if item.type.kind != "state")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self.function.block.outputs

    def make_state(self) -> States:
        """Return fresh states, all zeros, for runs that follow each other."""
        declared = [item for item in self.function.inputs if item.type.kind == "state"]
        return {item.name: State(empty_state(item)) for item in declared}

    def run(
        self, inputs: Mapping[str, Array], *, states: States | None = None, observer: Observer | None = None
    ) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: Name -> array of the input's shape; integers and floats are converted where nothing is lost.
            states: From ``make_state``; changed by the run. None: fresh ones.
            observer: Is told of every operation.

        Returns:
            Name -> array in the declared dtype (float16 as float16).

        Raises:
            DataError: An input is missing, unknown or of another shape.
            ToolError: An operation failed; the message names it and its place.
        """
        values: dict[str, Value] = {item.name: self._feed(item, inputs) for item in self.inputs}
        unknown = sorted(set(inputs) - set(values))
        if unknown:
            raise DataError(f"the function has no input {unknown[0]!r}. {nearest(unknown[0], values)}")
        values.update(self.make_state() if states is None else states)
        with torch.inference_mode():
            found = _Run(self._prepared, observer).block(self._prepared.steps, values)
        return {name: self._array(name, value) for name, value in zip(self.outputs, found, strict=True)}

    def _feed(self, declared: Named, inputs: Mapping[str, Array]) -> Tensor:
        if declared.name not in inputs:
            names = ", ".join(item.name for item in self.inputs)
            raise DataError(
                f"expected the input {declared.name!r} (of {names}); received {', '.join(inputs) or 'none'}"
            )
        array = np.asarray(inputs[declared.name])
        if not fits(array.shape, declared.type.shape):
            raise DataError(f"input {declared.name!r}: expected {declared.type}; received {array.dtype} {array.shape}")
        if declared.name in self._allowed:
            self._allowed[declared.name].check(array.shape)
        value = self._prepared.arithmetic.settle(_tensor(array), declared, exact=False)
        if not isinstance(value, Tensor):
            raise DataError(f"input {declared.name!r}: expected a tensor; received {array.dtype}")
        return value

    def _array(self, name: str, value: Value) -> Array:
        if not isinstance(value, Tensor):
            raise ToolError(f"output {name!r}: expected a tensor; the program gives {type(value).__name__}")
        declared = self._declared.get(name)
        found: Array = value.numpy()
        return found if declared is None else found.astype(NUMPY[declared.dtype], copy=False)


def fits(shape: Sequence[int], declared: tuple[int | None, ...] | None) -> bool:
    """Whether a shape is one of a declared shape's."""
    if declared is None:
        return True
    return len(shape) == len(declared) and all(
        size in (None, given) for size, given in zip(declared, shape, strict=True)
    )


def _tensor(array: Array) -> Tensor:
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]).reshape(array.shape))


class _Run:
    """One run: the constants, and who watches."""

    def __init__(self, prepared: Prepared, observer: Observer | None) -> None:
        self._arithmetic = prepared.arithmetic
        self._constants = prepared.constants
        self._opset = prepared.function.opset
        self._observer = observer

    def block(self, steps: Steps, values: dict[str, Value]) -> tuple[Value, ...]:
        """Execute a block; ``values`` grows and shrinks on the way."""
        for step in steps.steps:
            self._execute(step, values)
            for name in step.release:
                values.pop(name, None)
        return tuple(self._look_up(name, values) for name in steps.outputs)

    def _execute(self, step: Step, values: dict[str, Value]) -> None:
        call = self._call(step, values)
        try:
            found = several(step.entry.execute(call))
        except FAILURES as error:
            shapes = ", ".join(f"{name} {_shape(value)}" for name, value in call.values.items())
            raise ToolError(f"{step.operation} failed with {shapes}: {error}") from error
        operation = step.operation
        if len(found) < len(operation.outputs):
            raise ToolError(f"{operation} declares {len(operation.outputs)} outputs and gives {len(found)}")
        settled = tuple(
            self._arithmetic.settle(value, declared, exact=step.entry.exact)
            for declared, value in zip(operation.outputs, found, strict=False)
        )
        for declared, value in zip(operation.outputs, settled, strict=True):
            if (
                isinstance(value, Tensor)
                and value.shape != declared.type.shape
                and not fits(value.shape, declared.type.shape)
            ):
                raise ArtifactError(
                    f"{operation}: it declares {declared.name!r} as {declared.type}; "
                    f"its inputs give {list(value.shape)}."
                )
            values[declared.name] = value
        if self._observer is not None:
            self._observer(step, call, settled)

    def _call(self, step: Step, values: dict[str, Value]) -> Call:
        arguments = dict(step.constants)
        for name, items in step.references.items():
            found = [self._look_up(item, values) if isinstance(item, str) else item for item in items]
            arguments[name] = found[0] if len(found) == 1 else tuple(found)
        if not step.blocks:
            return Call(step.operation, self._opset, arguments, step.settings, no_blocks)

        def run_block(index: int, inputs: Sequence[Value]) -> tuple[Value, ...]:
            block = step.blocks[index]
            inner = dict(values)
            inner.update(zip((item.name for item in block.inputs), inputs, strict=True))
            return self.block(block, inner)

        return Call(step.operation, self._opset, arguments, step.settings, run_block)

    def _look_up(self, name: str, values: Mapping[str, Value]) -> Value:
        found = values.get(name)
        return self._constants[name] if found is None else found


def _shape(value: Value) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
