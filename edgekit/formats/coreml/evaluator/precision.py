"""Where half precision overflows in a program, and what it costs, operation by operation.

The program runs twice on the same inputs: in float32, and rounded as it is held. Each result of the second run is
compared with that of the first (``sqnr_db``: what has been lost up to here), and each operation is carried out once
more on the float32 run's own inputs, rounded (``own_sqnr_db``: what this operation loses by itself). Both runs' results
of one input are held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.execute import Array, Evaluator
from edgekit.formats.coreml.evaluator.graph import Function, Graph, walk
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.evaluator.prepare import Step, round_half, several
from edgekit.formats.coreml.evaluator.registry import Call, Compute, Value
from edgekit.records import SQNR_CEILING_DB

HALF_MAX = 65504.0
"""The greatest float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPrecision:
    """One result of one operation.

    Attributes:
        name: Of the result in the program.
        type: Of the operation.
        sqnr_db: Against the float32 run; None where the rounded run holds infinity or NaN.
        own_sqnr_db: Of this operation alone, on rounded float32 inputs; None where that gives infinity or NaN, or the
            operation holds blocks.
        max_abs: Greatest magnitude in the float32 run.
        overflows: The rounded run has infinity or NaN where the float32 run has numbers.
        starts_overflow: And none of its inputs has: the operation itself leaves the range of float16.
        rounded: Whether the result is held in float16.
    """

    name: str
    type: str
    sqnr_db: float | None
    own_sqnr_db: float | None
    max_abs: float
    overflows: bool
    starts_overflow: bool
    rounded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionReport:
    """What half precision does to a program.

    Attributes:
        compute: ``declared`` where the program holds float16 itself, else ``fp16``.
        operations: In the order of execution; the first pass through each body of a loop.
        first_overflow: The first operation that leaves the range; None: none does.
        outputs: Output -> SQNR in dB, None where it is not finite.
    """

    compute: Compute
    operations: tuple[OperationPrecision, ...]
    first_overflow: str | None
    outputs: dict[str, float | None]

    def lossiest(self, count: int) -> tuple[OperationPrecision, ...]:
        """Return the operations that lose most by themselves, overflows first."""
        rounded = [item for item in self.operations if item.rounded and item.type != "cast"]
        return tuple(sorted(rounded, key=_own_loss)[:count])

    def keep_in_float32(self) -> tuple[str, ...]:
        """Return the operations that leave the range of float16 by themselves: those to keep in float32."""
        return tuple(item.name for item in self.operations if item.starts_overflow)


def _own_loss(item: OperationPrecision) -> float:
    if item.starts_overflow:
        return -math.inf
    return SQNR_CEILING_DB if item.own_sqnr_db is None else item.own_sqnr_db


def analyse_precision(
    source: Path | Graph, inputs: Mapping[str, Array], *, function: str | None = None, compute: Compute | None = None
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
    rounding: Compute = compute or ("declared" if chosen is not None and declares_half(chosen) else "fp16")
    exact = _Record(own=True)
    expected = Evaluator(graph, function=function, compute="fp32").run(inputs, observer=exact.observe)
    rounded = _Record(own=False)
    found = Evaluator(graph, function=function, compute=rounding).run(inputs, observer=rounded.observe)
    operations = tuple(
        _compare(rounded.facts[name], rounded.values[name], exact.values[name], exact.facts[name].own_sqnr_db, rounding)
        for name in rounded.values
        if name in exact.values
    )
    return PrecisionReport(
        compute=rounding,
        operations=operations,
        first_overflow=next((item.name for item in operations if item.starts_overflow), None),
        outputs={
            name: sqnr_db(torch.from_numpy(value), torch.from_numpy(expected[name]))
            for name, value in found.items()
            if value.dtype.kind == "f"
        },
    )


def declares_half(function: Function) -> bool:
    """Whether a program holds any result in float16."""
    return any(item.type.dtype == "float16" for operation in walk(function.block) for item in operation.outputs)


def sqnr_db(found: Tensor, expected: Tensor) -> float | None:
    """Return the signal to error ratio in dB, at most the ceiling; None where ``found`` is not finite."""
    found, expected = found.double(), expected.double()
    known = torch.isfinite(expected)
    if not bool(torch.isfinite(found[known]).all()):
        return None
    error = float((found[known] - expected[known]).square().sum())
    signal = float(expected[known].square().sum())
    if error == 0:
        return SQNR_CEILING_DB
    return 10 * math.log10(signal / error) if signal else 0.0


class _Record:
    """Every floating-point result of a run, by name; the first where a loop gives several."""

    def __init__(self, *, own: bool) -> None:
        self._own = own
        self.values: dict[str, Tensor] = {}
        self.facts: dict[str, OperationPrecision] = {}

    def observe(self, step: Step, call: Call, results: tuple[Value, ...]) -> None:
        """Note the results of one operation."""
        spoiled = any(not bool(torch.isfinite(value).all()) for value in _floats(call.values.values()))
        own = self._own_results(step, call) if self._own else ()
        for place, (declared, value) in enumerate(zip(step.operation.outputs, results, strict=True)):
            if declared.name in self.values or not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            self.values[declared.name] = value
            alone = own[place] if place < len(own) else None
            self.facts[declared.name] = OperationPrecision(
                name=declared.name,
                type=step.operation.type,
                sqnr_db=None,
                own_sqnr_db=sqnr_db(round_half(alone), value) if isinstance(alone, Tensor) else None,
                max_abs=0.0,
                overflows=False,
                starts_overflow=not spoiled,
                rounded=declared.type.dtype == "float16",
            )

    def _own_results(self, step: Step, call: Call) -> tuple[Value, ...]:
        if step.blocks or "state" in step.operation.type:
            return ()
        inputs = {name: _rounded(value) for name, value in call.values.items()}
        return several(step.entry.execute(replace(call, values=inputs)))


def _rounded(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(_rounded(item) for item in value)
    return round_half(value) if isinstance(value, Tensor) and value.is_floating_point() else value


def _floats(values: object) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:  # type: ignore[attr-defined]
        items = value if isinstance(value, tuple) else (value,)
        found += [item for item in items if isinstance(item, Tensor) and item.is_floating_point()]
    return found


def _compare(
    fact: OperationPrecision, found: Tensor, expected: Tensor, own_sqnr_db: float | None, rounding: Compute
) -> OperationPrecision:
    """Complete a fact of the rounded run with what the float32 run gave."""
    same_shape = found.shape == expected.shape
    known = torch.isfinite(expected)
    overflows = same_shape and not bool(torch.isfinite(found[known]).all())
    return replace(
        fact,
        sqnr_db=sqnr_db(found, expected) if same_shape else None,
        own_sqnr_db=own_sqnr_db,
        max_abs=float(expected[known].abs().max()) if bool(known.any()) else 0.0,
        overflows=overflows,
        starts_overflow=overflows and fact.starts_overflow,
        rounded=fact.rounded or rounding == "fp16",
    )
