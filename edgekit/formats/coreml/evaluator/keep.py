"""Which operations of a program must compute in float32, so that its outputs are finite and lose little.

An overflow that comes to nothing is left alone: infinity before a softmax or a clip is what float32 gives too. One that
reaches an output is followed back to the operations that leave the range of float16 by themselves, and from there
forward through every value that float16 cannot hold: an operation that reads such a value must read it in float32.

Where nothing overflows, but an output loses too much, the operations that lose most by themselves are chosen, each with
those that give its inputs: what is lost in a difference of two large numbers was lost when they were rounded. Whether
that is enough is tried out, by running the program with exactly these results unrounded; while it is not, the choice
goes one operation further back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from edgekit.formats.coreml.evaluator.graph import Block, Function, Graph, Named, Operation, walk
from edgekit.formats.coreml.evaluator.precision import HALF_MAX, OperationPrecision, PrecisionReport

LARGE = HALF_MAX / 2
"""Values from here on count as out of range: other samples may have larger ones than those that were seen."""
FLOORS_DB = (50.0, 60.0, 70.0)
"""What an operation may lose by itself, the most lenient first; rounding alone costs about 74 dB."""
STEPS_BACK = 6
"""How far to go back from the operations that lose most."""
Passes = Callable[[frozenset[str]], bool]
"""Whether the outputs are good enough when these results are not rounded."""


def operations_to_keep(
    function: Function, reports: Sequence[PrecisionReport], failing: Mapping[str, float | None], passes: Passes
) -> tuple[str, ...]:
    """Choose the operations to compute in float32.

    Args:
        function: The program.
        reports: Of several samples.
        failing: Outputs that are not good enough, with their SQNR in dB; None: not finite.
        passes: Tries a choice out.

    Returns:
        Names of operations, in the order of execution; empty where nothing fails, or nothing more can be done.
    """
    if not failing:
        return ()
    return _Choice(function, reports, passes).operations(failing)


def without_rounding(graph: Graph, function: str, results: frozenset[str], *, rounds_everything: bool) -> Graph:
    """Return a graph that rounds to float16 as another does, but for some results.

    Args:
        graph: It is not changed.
        function: Only this one is returned.
        results: Names; they are held in float32.
        rounds_everything: Every other result of floating point is held in float16, whatever it declares.

    Returns:
        To be evaluated as ``declared``.
    """

    def retyped(item: Named) -> Named:
        if item.name in results or not item.type.dtype.startswith("float"):
            dtype = item.type.dtype.replace("float16", "float32")
        else:
            dtype = "float16" if rounds_everything else item.type.dtype
        return replace(item, type=replace(item.type, dtype=dtype))

    def rewritten(block: Block) -> Block:
        return replace(
            block,
            operations=tuple(
                operation
                if operation.type == "const"
                else replace(
                    operation,
                    outputs=tuple(map(retyped, operation.outputs)),
                    blocks=tuple(map(rewritten, operation.blocks)),
                )
                for operation in block.operations
            ),
        )

    chosen = graph.functions[function]
    return replace(graph, functions={function: replace(chosen, block=rewritten(chosen.block))}, default=function)


class _Choice:
    def __init__(self, function: Function, reports: Sequence[PrecisionReport], passes: Passes) -> None:
        self._passes = passes
        self._operations = list(walk(function.block))
        self._giver = {item.name: operation for operation in self._operations for item in operation.outputs}
        self._half = {
            item.name for operation in self._operations for item in operation.outputs if item.type.dtype == "float16"
        }
        self._everything = any(report.compute == "fp16" for report in reports)
        self._facts: dict[str, list[OperationPrecision]] = {}
        self._max_abs: dict[str, float] = {}
        for report in reports:
            for name, value in report.inputs.items():
                self._max_abs[name] = max(value, self._max_abs.get(name, 0.0))
            for fact in report.operations:
                self._facts.setdefault(fact.name, []).append(fact)
                self._max_abs[fact.name] = max(fact.max_abs, self._max_abs.get(fact.name, 0.0))

    def operations(self, failing: Mapping[str, float | None]) -> tuple[str, ...]:
        """Name the operations, those that a converter can leave in float32 only."""
        origins = self._overflow_origins(failing)
        chosen = self._readers_of_large(origins) if origins else self._lossy(failing)
        return tuple(
            operation.name
            for operation in self._operations
            if operation.name in chosen and operation.type not in ("cast", "const")
        )

    def _overflow_origins(self, failing: Mapping[str, float | None]) -> set[str]:
        """Results that overflow by themselves, and spoil a failing output."""
        broken = [name for name, sqnr in failing.items() if sqnr is None]
        reached = self._behind(broken, only_overflowing=True) or self._behind(failing, only_overflowing=False)
        return {name for name in reached if any(fact.starts_overflow for fact in self._facts.get(name, ()))}

    def _overflows(self, name: str) -> bool:
        return any(fact.overflows for fact in self._facts.get(name, ()))

    def _behind(self, names: Iterable[str], *, only_overflowing: bool) -> set[str]:
        """Follow results back to all that they are computed from; or only along infinities and NaN."""
        pending, seen = list(names), set[str]()
        while pending:
            name = pending.pop()
            if name in seen or name not in self._giver or (only_overflowing and not self._overflows(name)):
                continue
            seen.add(name)
            pending += _reads(self._giver[name])
        return seen

    def _readers_of_large(self, origins: set[str]) -> set[str]:
        """Names of the operations that give ``origins``, and of all that a value out of range reaches from there."""
        chosen = {self._giver[name].name for name in origins}
        out_of_range = set(origins)
        for operation in self._operations:  # in the order of execution, so that one pass reaches everything
            if operation.name not in chosen and out_of_range.isdisjoint(_reads(operation)):
                continue
            chosen.add(operation.name)
            out_of_range |= {item.name for item in operation.outputs if self._max_abs.get(item.name, 0.0) > LARGE}
        return chosen

    def _lossy(self, failing: Iterable[str]) -> set[str]:
        """Names of the operations that lose most by themselves, with as many before them as it takes."""
        behind = self._behind(failing, only_overflowing=False)
        losses = {name: loss for name in behind if (loss := self._own_loss(name)) is not None}
        for floor in FLOORS_DB:
            results = {name for name, loss in losses.items() if loss < floor}
            for _ in range(STEPS_BACK if results else 0):
                before = {given for name in results for given in self._rounded_inputs(name)}
                if before <= results:
                    break
                results |= before
                if self._passes(frozenset(results | self._casts_before(results))):
                    return {self._giver[name].name for name in results}
        return set()

    def _casts_before(self, results: Iterable[str]) -> set[str]:
        """Casts that ``results`` read: an operation in float32 reads what was there before the cast."""
        read = {name for result in results for name in _reads(self._giver[result])}
        return {name for name in read if name in self._giver and self._giver[name].type == "cast"}

    def _own_loss(self, name: str) -> float | None:
        found = [fact for fact in self._facts.get(name, ()) if fact.own_sqnr_db is not None]
        return min((fact.own_sqnr_db for fact in found if fact.own_sqnr_db is not None), default=None)

    def _rounded_inputs(self, result: str) -> Iterator[str]:
        for name in _reads(self._giver[result]):
            while name in self._giver and self._giver[name].type == "cast":
                (name,) = _reads(self._giver[name])
            if name in self._giver and (self._everything or name in self._half):
                yield name


def _reads(operation: Operation) -> list[str]:
    """Names that an operation reads, its blocks included."""
    names = list(operation.references())
    pending: list[Block] = list(operation.blocks)
    while pending:
        block = pending.pop()
        names += block.outputs
        for inner in block.operations:
            names += inner.references()
            pending += inner.blocks
    return names
