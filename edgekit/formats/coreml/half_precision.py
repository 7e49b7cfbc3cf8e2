"""What half precision does to a package, on several samples; and which operations to keep in float32 because of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.contracts import Inspection
from edgekit.errors import DataError
from edgekit.formats.coreml.evaluator.execute import Evaluator
from edgekit.formats.coreml.evaluator.graph import Function, Operation, walk
from edgekit.formats.coreml.evaluator.keep import operations_to_keep, without_rounding
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.evaluator.precision import (
    OperationPrecision,
    PrecisionReport,
    analyse_precision,
    declares_half,
    ratio_db,
    signal_and_error,
    sqnr_db,
)
from edgekit.formats.coreml.inspect import inspect
from edgekit.formats.coreml.operators import INPUT_GRID
from edgekit.formats.coreml.session import feed
from edgekit.records import SQNR_CEILING_DB, HalfCompute, HalfPrecision, OperationLoss

Array = NDArray[np.generic]

LEAST_SQNR_DB = 40.0
"""What fp16 artifacts are held to against their model, and so here against themselves in float32."""
MOST_SAMPLES = 64
MOST_MACS = 20_000_000_000
"""Multiply-accumulates to spend on the samples: a count, not a time, so that a result never depends on the machine."""
WORST_SAMPLES = 3
"""On how many operations are looked at one by one."""
OPERATIONS_TOLD = 10
_CAST = "_cast_fp16"
"""What coremltools puts behind the name of an operation that it lets compute in float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which layers of the source model operations come from.

    Attributes:
        of: Operation -> dotted paths of the layers that it was recorded in, the most telling first.
        renamed: Operation in the package -> what it was called when its precision was chosen, where that is not told by
            its name: coremltools calls what gives an output in float32 by the output's name.
    """

    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def operation(self, name: str) -> str:
        """Return what an operation of the package was called when its precision was chosen.

        Example:
            >>> Layers().operation("mul_1_cast_fp16")
            'mul_1'
        """
        return self.renamed.get(name) or name.removesuffix(_CAST)

    def layer(self, operation: str) -> str | None:
        """Return the layer that an operation comes from; None where that is not known, or it is in none."""
        return next(iter(self.of.get(operation, ())), None)

    def only(self, operations: Iterable[str]) -> Layers:
        """Forget operations that a package does not hold: those that became part of others in the end."""
        held = set(operations)
        return replace(self, of={name: paths for name, paths in self.of.items() if name in held})

    def shorten(self, operations: Iterable[str]) -> tuple[str, ...]:
        """Name layers in place of their operations, where all of a layer's operations are among them."""
        chosen = tuple(operations)
        members: dict[str, set[str]] = {}
        for name, paths in self.of.items():
            for path in paths:
                members.setdefault(path, set()).add(name)
        whole = {path: len(names) for path, names in members.items() if names <= set(chosen)}
        return tuple(dict.fromkeys(self._largest(name, whole) for name in chosen))

    def _largest(self, operation: str, sizes: Mapping[str, int]) -> str:
        """Return the layer around an operation that holds most, of those in ``sizes``; the operation where none is."""
        return max(
            (path for path in self.of.get(operation, ()) if path in sizes), key=sizes.__getitem__, default=operation
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found, before it is told.

    Attributes:
        outputs: Output -> SQNR in dB over all samples, None where it is not finite.
        reports: Of the worst samples.
        keep: Names in the package of the operations to keep in float32 besides those that are.
        limit: What outputs must reach; None: finite is enough.
    """

    function: Function
    compute: HalfCompute
    samples: int
    outputs: dict[str, float | None]
    reports: tuple[PrecisionReport, ...]
    keep: tuple[str, ...]
    limit: float | None

    @property
    def failing(self) -> dict[str, float | None]:
        """Outputs that are not finite or below the limit."""
        return _below(self.outputs, self.limit)

    def record(self, layers: Layers) -> HalfPrecision:
        """Tell what was found."""
        layers = layers.only(layers.operation(operation.name) for operation in walk(self.function.block))
        merged = _merge(self.reports)
        first = next((item for item in merged if item.starts_overflow), None)
        kept = kept_in_float32(self.function) if self.compute == "declared" else ()
        told = sorted((item for item in merged if item.rounded and item.type != "cast"), key=_blame)
        return HalfPrecision(
            compute=self.compute,
            samples=self.samples,
            outputs=self.outputs,
            first_overflow=layers.operation(first.operation) if first is not None else None,
            worst=tuple(_told(item, layers) for item in told[:OPERATIONS_TOLD]),
            keep_in_float32=layers.shorten(map(layers.operation, self.keep)),
            kept_in_float32=layers.shorten(map(layers.operation, kept)),
        )


def analyse_half_precision(path: Path, samples: Sequence[Sequence[Array]], compute: HalfCompute) -> HalfPrecision:
    """Find where float16 overflows in a package, what it costs, and what to keep in float32.

    Args:
        path: The package.
        samples: Each one array an input, in order, with a batch of one. Of many, those with the largest values are run:
            as many as ``MOST_SAMPLES`` and ``MOST_MACS`` allow.
        compute: ``declared``: rounded where the package declares float16; ``fp16``: everywhere.

    Raises:
        ArtifactError: The package is damaged.
        UnsupportedError: It holds an operation that the evaluator does not know.
        DataError: There are no samples, or they do not fit.
        ToolError: An operation failed.
    """
    return examine(path, samples, compute).record(Layers())


def examine(path: Path, samples: Sequence[Sequence[Array]], compute: HalfCompute) -> Examination:
    """Run a package on samples in float32 and in half precision; see :func:`analyse_half_precision`."""
    if not samples:
        raise DataError("expected at least one sample to find out what half precision does; received none")
    graph, inspection = load(path), inspect(path)
    fed = [feed(inspection.inputs, sample) for sample in _with_largest_values(samples, inspection)]
    exact, rounded = Evaluator(graph, compute="fp32"), Evaluator(graph, compute=compute)
    comparison = _Comparison()
    for inputs in fed:
        comparison.add(rounded.run(inputs), exact.run(inputs))
    worst = [fed[place] for place in comparison.worst(WORST_SAMPLES)]
    function, outputs = rounded.function, comparison.outputs()
    limit = None if _is_quantized(function) else LEAST_SQNR_DB
    reports = tuple(analyse_precision(graph, inputs, compute=compute) for inputs in worst)

    def passes(results: frozenset[str]) -> bool:
        changed = without_rounding(graph, function.name, results, rounds_everything=compute == "fp16")
        trial, compared = Evaluator(changed, compute="declared"), _Comparison()
        for inputs in worst:
            compared.add(trial.run(inputs), exact.run(inputs))
        return not _below(compared.outputs(), limit)

    return Examination(
        function=function,
        compute=compute,
        samples=len(fed),
        outputs=outputs,
        reports=reports,
        keep=operations_to_keep(function, reports, _below(outputs, limit), passes),
        limit=limit,
    )


def _below(outputs: Mapping[str, float | None], limit: float | None) -> dict[str, float | None]:
    """Return the outputs that are not finite, or below a limit in dB."""
    least = -math.inf if limit is None else limit
    return {name: sqnr for name, sqnr in outputs.items() if sqnr is None or sqnr < least}


def kept_in_float32(function: Function) -> tuple[str, ...]:
    """Name the operations that compute in float32 in a program that declares float16 otherwise."""
    if not declares_half(function):
        return ()
    return tuple(operation.name for operation in walk(function.block) if _computes_in_float32(operation))


def _computes_in_float32(operation: Operation) -> bool:
    if operation.type in ("cast", "const") or operation.name.startswith(INPUT_GRID):
        return False
    return any(item.type.dtype == "float32" for item in operation.outputs)


def _is_quantized(function: Function) -> bool:
    """Whether a rounding error can move a value by a whole quantization step, which is no fault of float16."""
    return any(operation.type == "quantize" for operation in walk(function.block))


def _with_largest_values(samples: Sequence[Sequence[Array]], inspection: Inspection) -> list[Sequence[Array]]:
    macs = sum(operator.macs for operator in inspection.operators)
    count = max(WORST_SAMPLES, min(MOST_SAMPLES, MOST_MACS // max(macs, 1)))
    ranked = sorted(range(len(samples)), key=lambda place: (*_negative_range(samples[place]), place))
    return [samples[place] for place in sorted(ranked[:count])]


def _negative_range(sample: Sequence[Array]) -> tuple[float, float]:
    reals = [np.asarray(array, np.float64) for array in sample if np.asarray(array).dtype.kind == "f"]
    largest = max((float(np.abs(array).max(initial=0.0)) for array in reals), default=0.0)
    return -largest, -float(sum(np.square(array).sum() for array in reals))


class _Comparison:
    """Outputs in half precision against those in float32, sample by sample."""

    def __init__(self) -> None:
        self._powers: dict[str, list[tuple[float, float] | None]] = {}
        self._lowest: list[float] = []

    def add(self, found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        lowest = SQNR_CEILING_DB
        for name, array in found.items():
            if array.dtype.kind != "f":
                continue
            pair = torch.from_numpy(array), torch.from_numpy(expected[name])
            self._powers.setdefault(name, []).append(signal_and_error(*pair))
            sqnr = sqnr_db(*pair)
            lowest = min(lowest, -math.inf if sqnr is None else sqnr)
        self._lowest.append(lowest)

    def worst(self, count: int) -> list[int]:
        """Return the places of the samples that came out worst."""
        return sorted(range(len(self._lowest)), key=lambda place: (self._lowest[place], place))[:count]

    def outputs(self) -> dict[str, float | None]:
        """Return each output's SQNR over all samples."""
        return {name: _total_db(powers) for name, powers in self._powers.items()}


def _total_db(powers: Sequence[tuple[float, float] | None]) -> float | None:
    known = [pair for pair in powers if pair is not None]
    if len(known) < len(powers):
        return None
    return ratio_db(sum(signal for signal, _ in known), sum(error for _, error in known))


def _merge(reports: Iterable[PrecisionReport]) -> list[OperationPrecision]:
    """Return each result as it came out on the sample that was worst for it."""
    merged: dict[str, OperationPrecision] = {}
    for report in reports:
        for item in report.operations:
            known = merged.get(item.name)
            merged[item.name] = item if known is None else min(known, item, key=_badness)
    return list(merged.values())


def _badness(item: OperationPrecision) -> tuple[bool, bool, float, float]:
    return not item.starts_overflow, not item.overflows, _own_loss(item), -item.max_abs


def _blame(item: OperationPrecision) -> tuple[bool, float]:
    """Order operations by what they do by themselves, whatever was spoiled before them."""
    return not item.starts_overflow, _own_loss(item)


def _own_loss(item: OperationPrecision) -> float:
    return SQNR_CEILING_DB if item.own_sqnr_db is None else item.own_sqnr_db


def _told(item: OperationPrecision, layers: Layers) -> OperationLoss:
    name = layers.operation(item.operation)
    return OperationLoss(
        name=name,
        type=item.type,
        sqnr_db=item.sqnr_db,
        own_sqnr_db=item.own_sqnr_db,
        max_abs=item.max_abs,
        overflows=item.overflows,
        starts_overflow=item.starts_overflow,
        layer=layers.layer(name),
    )
