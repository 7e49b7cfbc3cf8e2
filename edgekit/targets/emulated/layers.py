"""Bring the runtime's operators back to the model's layers, and say how many bytes each touches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgekit.records import EmulatedOperator, InstructionCounts, Operator
from edgekit.targets.emulated.attribution import Attribution, SegmentOperator
from edgekit.targets.emulated.counts import Counts

_PRODUCTS: Final = ("Convolution", "Fully Connected", "Deconvolution", "Batch Matrix")
"""Words in the names of XNNPACK's operators that multiply and accumulate: these keep the order of the graph."""
_KERNELS_KEPT: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedOperator:
    """An operator of a counted run, before any time.

    Attributes:
        operator: Its figures; ``share`` is that of the instructions.
        segments: Segments of the run that are its.
        touched_bytes: Distinct bytes that it reads and writes, about: its constants, what it stores, and as much again
            for what it reads of earlier operators.
    """

    operator: EmulatedOperator
    segments: tuple[int, ...]
    touched_bytes: float


def counted_operators(
    found: Attribution, layers: Sequence[Operator], artifact: Path, counts: Counts
) -> tuple[CountedOperator, ...]:
    """Name the operators of a run by the layers that they compute, where that is certain.

    Args:
        found: The run's operators as the runtime names them.
        layers: Operators of the artifact as its inspection lists them; empty: not known.
        artifact: Its size bounds the constants of operators whose layer is not known.
        counts: Of the run.
    """
    named = match_layers(found.operators, layers)
    whole = counts.steady_instructions or 1
    constants = _constant_bytes(found.operators, named, artifact)
    seen: Counter[str] = Counter()
    made = []
    for place, (one, own_bytes) in enumerate(zip(found.operators, constants, strict=True)):
        layer = named.get(place)
        name = layer.name if layer is not None else one.name
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        operator = _operator(one, unique, layer, whole)
        made.append(
            CountedOperator(operator=operator, segments=one.segments, touched_bytes=own_bytes + 2.0 * one.store_bytes)
        )
    return tuple(made)


def match_layers(operators: Sequence[SegmentOperator], layers: Sequence[Operator]) -> dict[int, Operator]:
    """Return the layer of each operator that is certain, by the operator's place.

    LiteRT says the node of what no delegate took, ONNX Runtime the node's name. Inside XNNPACK only the kind of kernel
    is known; products keep their order, so they are matched one to one where there are as many as in the graph.
    """
    matched = dict(_by_node(operators, layers))
    products = [
        place
        for place, one in enumerate(operators)
        if one.delegated and any(word in one.type or word in one.name for word in _PRODUCTS)
    ]
    multiplying = [layer for layer in layers if layer.delegated and layer.macs]
    if len(products) == len(multiplying):
        matched.update(zip(products, multiplying, strict=True))
    return matched


def _by_node(operators: Sequence[SegmentOperator], layers: Sequence[Operator]) -> Iterator[tuple[int, Operator]]:
    by_index = {layer.index: layer for layer in layers if not layer.delegated}
    by_name = {layer.name: layer for layer in layers}
    for place, one in enumerate(operators):
        if one.name in by_name:
            yield place, by_name[one.name]
        elif not one.delegated and one.node is not None and one.node in by_index:
            layer = by_index[one.node]
            if layer.type == one.type:
                yield place, layer


def _constant_bytes(
    operators: Sequence[SegmentOperator], named: dict[int, Operator], artifact: Path
) -> Iterator[float]:
    """Yield the bytes of constants of each operator; where the layer is not known, its share of the file by loads."""
    known = sum(layer.weight_bytes for layer in named.values())
    rest = max(0, _size(artifact) - known)
    loads = sum(one.load_bytes for place, one in enumerate(operators) if place not in named) or 1
    for place, one in enumerate(operators):
        layer = named.get(place)
        own = float(layer.weight_bytes) if layer is not None else rest * one.load_bytes / loads
        yield min(own, float(one.load_bytes))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _operator(one: SegmentOperator, name: str, layer: Operator | None, whole: int) -> EmulatedOperator:
    operator = EmulatedOperator(
        name=name,
        type=one.type,
        delegated=one.delegated,
        time_ms=None,
        share=one.instructions / whole,
        instructions=one.instructions,
        counts=InstructionCounts(
            groups={group: count for group, count in one.groups.items() if count},
            load_bytes=one.load_bytes,
            store_bytes=one.store_bytes,
        ),
        kernel=one.kernel or None,
        kernels={kernel.name: kernel.instructions for kernel in one.kernels[:_KERNELS_KEPT]},
    )
    if layer is None:
        return operator
    reason = layer.reason if not one.delegated else None
    return replace(operator, node=layer.name, macs=layer.macs, reason=reason)
