"""Where half precision overflows in a program, and what it costs, operation by operation.

The program runs twice on the same inputs: in float32, and rounded as it is held. Each result of the second run is
compared with that of the first (``sqnr_db``: what has been lost up to here), and each operation is carried out once
more on the float32 run's own inputs, rounded as they are held (``own_sqnr_db``: what this operation loses by itself).
Both runs' results of one input are held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.execute import Array, Evaluator
from edgekit.formats.coreml.evaluator.graph import Block, Function, Graph, Named, walk
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.evaluator.prepare import Arithmetic, Step, round_half, several
from edgekit.formats.coreml.evaluator.registry import Call, Value
from edgekit.records import SQNR_CEILING_DB, HalfCompute

HALF_MAX = 65504.0
"""The greatest float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPrecision:
    """One result of one operation.

    Attributes:
        name: Of the result in the program.
        operation: Name of the operation.
        type: Of the operation.
        sqnr_db: Against the float32 run; None where the rounded run holds infinity or NaN.
        own_sqnr_db: Of this operation alone, on float32 inputs that are rounded where they are held so; None where that
            gives infinity or NaN, or the operation holds blocks.
        max_abs: Greatest magnitude in the float32 run.
        overflows: The rounded run has infinity or NaN where the float32 run has numbers.
        starts_overflow: And nothing that it reads has: the operation itself leaves the range of float16.
        rounded: Whether the result is held in float16.
    """

    name: str
    operation: str
    type: str
    sqnr_db: float | None
    own_sqnr_db: float | None
    max_abs: float
    overflows: bool
    starts_overflow: bool
    rounded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionReport:
    """What half precision does to a program on one sample.

    Attributes:
        compute: ``declared`` where the program holds float16 itself, else ``fp16``.
        operations: In the order of execution; the first pass through each body of a loop.
        outputs: Output -> SQNR in dB, None where it is not finite.
        inputs: Floating-point input -> greatest magnitude.
    """

    compute: HalfCompute
    operations: tuple[OperationPrecision, ...]
    outputs: dict[str, float | None]
    inputs: dict[str, float]

    @property
    def first_overflow(self) -> str | None:
        """Name of the first result that leaves the range of float16; None: none does."""
        return next((item.name for item in self.operations if item.starts_overflow), None)

    def lossiest(self, count: int) -> tuple[OperationPrecision, ...]:
        """Return the operations that lose most by themselves, overflows first."""
        rounded = [item for item in self.operations if item.rounded and item.type != "cast"]
        return tuple(sorted(rounded, key=_own_loss)[:count])


def _own_loss(item: OperationPrecision) -> float:
    if item.starts_overflow:
        return -math.inf
    return SQNR_CEILING_DB if item.own_sqnr_db is None else item.own_sqnr_db


def analyse_precision(
    source: Path | Graph,
    inputs: Mapping[str, Array],
    *,
    function: str | None = None,
    compute: HalfCompute | None = None,
) -> PrecisionReport:
    """Compare a program in half precision with itself in float32.

    Args:
        source: The package, or its graph.
        inputs: Of one run.
        function: Of a package with several.
        compute: None: ``declared`` where the program declares float16 anywhere, else ``fp16`` (what it would lose).

    Raises:
        ArtifactError: The package is damaged.
        UnsupportedError: An operation that the evaluator does not know.
        DataError: An input does not fit.
        ToolError: An operation failed.
    """
    graph = source if isinstance(source, Graph) else load(source)
    chosen = graph.functions.get(function or graph.default)
    rounding: HalfCompute = compute or ("declared" if chosen is not None and declares_half(chosen) else "fp16")
    evaluator = Evaluator(graph, function=function, compute="fp32")
    exact = _Record(own=_Rounded(evaluator.function, rounding))
    expected = evaluator.run(inputs, observer=exact.observe)
    rounded = _Record()
    found = Evaluator(graph, function=function, compute=rounding).run(inputs, observer=rounded.observe)
    operations = tuple(
        _compare(rounded.facts[name], rounded.values[name], exact.values[name], exact.facts[name].own_sqnr_db, rounding)
        for name in rounded.values
        if name in exact.values
    )
    return PrecisionReport(
        compute=rounding,
        operations=tuple(_with_origins(operations, evaluator.function)),
        outputs={
            name: sqnr_db(torch.from_numpy(value), torch.from_numpy(expected[name]))
            for name, value in found.items()
            if value.dtype.kind == "f"
        },
        inputs={name: float(abs(array).max()) for name, array in inputs.items() if array.dtype.kind == "f"},
    )


def declares_half(function: Function) -> bool:
    """Whether a program holds any result in float16."""
    return any(item.type.dtype == "float16" for operation in walk(function.block) for item in operation.outputs)


def sqnr_db(found: Tensor, expected: Tensor) -> float | None:
    """Return the signal to error ratio in dB, at most the ceiling; None where ``found`` is not finite."""
    powers = signal_and_error(found, expected)
    return None if powers is None else ratio_db(*powers)


def signal_and_error(found: Tensor, expected: Tensor) -> tuple[float, float] | None:
    """Return the energy of what was expected and of the error; None where ``found`` is not finite but should be."""
    found, expected = found.double(), expected.double()
    known = torch.isfinite(expected)
    if not bool(torch.isfinite(found[known]).all()):
        return None
    return float(expected[known].square().sum()), float((found[known] - expected[known]).square().sum())


def ratio_db(signal: float, error: float) -> float:
    """Return the ratio of two energies in dB, at most the ceiling."""
    if error == 0:
        return SQNR_CEILING_DB
    return 10 * math.log10(signal / error) if signal else 0.0


class _Rounded:
    """What an operation gives on inputs that are rounded as they are held, but exact before that."""

    def __init__(self, function: Function, compute: HalfCompute) -> None:
        self._arithmetic = Arithmetic(compute)
        declared = (*function.inputs, *_named(function.block))
        self._half = {item.name for item in declared if self._arithmetic.rounds(item.type.dtype)}

    def results(self, step: Step, call: Call) -> tuple[Value, ...]:
        """Carry out one operation of the float32 run, rounded; nothing where it holds blocks or a state."""
        if step.blocks or "state" in step.operation.type:
            return ()
        values = {name: self._feed(step, name, value) for name, value in call.values.items()}
        given = several(step.entry.execute(replace(call, values=values)))
        return tuple(
            self._arithmetic.settle(value, declared, exact=step.entry.exact)
            for value, declared in zip(given, step.operation.outputs, strict=False)
        )

    def _feed(self, step: Step, parameter: str, value: Value) -> Value:
        names = step.references.get(parameter, ())
        if isinstance(value, tuple):
            if len(names) != len(value):
                return value
            return tuple(self._round(item, name) for item, name in zip(value, names, strict=True))
        return self._round(value, names[0] if len(names) == 1 else None)

    def _round(self, value: Value, name: str | Value | None) -> Value:
        """Round a value that is held in float16; constants are in what they are held in already, or all are rounded."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        half = name in self._half if isinstance(name, str) else self._arithmetic.compute == "fp16"
        return round_half(value) if half else value


def _named(block: Block) -> Iterator[Named]:
    yield from block.inputs
    for operation in block.operations:
        yield from operation.outputs
        for inner in operation.blocks:
            yield from _named(inner)


class _Record:
    """Every floating-point result of a run, by name; the first where a loop gives several.

    Args:
        own: Also find out what each operation loses by itself.
    """

    def __init__(self, own: _Rounded | None = None) -> None:
        self._own = own
        self.values: dict[str, Tensor] = {}
        self.facts: dict[str, OperationPrecision] = {}

    def observe(self, step: Step, call: Call, results: tuple[Value, ...]) -> None:
        """Note the results of one operation."""
        own = self._own.results(step, call) if self._own is not None else ()
        for place, (declared, value) in enumerate(zip(step.operation.outputs, results, strict=True)):
            if declared.name in self.values or not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            self.values[declared.name] = value
            alone = own[place] if place < len(own) else None
            self.facts[declared.name] = OperationPrecision(
                name=declared.name,
                operation=step.operation.name,
                type=step.operation.type,
                sqnr_db=None,
                own_sqnr_db=sqnr_db(alone, value) if isinstance(alone, Tensor) else None,
                max_abs=0.0,
                overflows=False,
                starts_overflow=False,
                rounded=declared.type.dtype == "float16",
            )


def _compare(
    fact: OperationPrecision, found: Tensor, expected: Tensor, own_sqnr_db: float | None, rounding: HalfCompute
) -> OperationPrecision:
    """Complete a fact of the rounded run with what the float32 run gave."""
    same_shape = found.shape == expected.shape
    known = torch.isfinite(expected)
    return replace(
        fact,
        sqnr_db=sqnr_db(found, expected) if same_shape else None,
        own_sqnr_db=own_sqnr_db,
        max_abs=float(expected[known].abs().max()) if bool(known.any()) else 0.0,
        overflows=same_shape and not bool(torch.isfinite(found[known]).all()),
        rounded=fact.rounded or rounding == "fp16",
    )


def _with_origins(operations: Iterable[OperationPrecision], function: Function) -> Iterator[OperationPrecision]:
    """Say which operations overflow though nothing that they read has overflowed."""
    reads = {
        item.name: tuple(operation.references()) for operation in walk(function.block) for item in operation.outputs
    }
    overflowed: set[str] = set()
    for fact in operations:
        if fact.overflows:
            yield replace(fact, starts_overflow=overflowed.isdisjoint(reads.get(fact.name, ())))
            overflowed.add(fact.name)
        else:
            yield fact
