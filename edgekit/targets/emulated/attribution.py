"""From segments of a run to the runtime's operators, the nodes of the model, and the kernel that ran for each.

The plugin begins a segment at each call of a watched function (`symbols.operator_watches`), or, for ONNX Runtime, each
time its profiler asks the clock. The runtime lists the operators that it ran. The two are brought together only where
they agree in number; where they do not, the segments keep honest names such as ``xnnpack operator 12``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.targets.emulated.counts import Boundary, Counts
from edgekit.targets.emulated.decode import GROUPS, decode_words
from edgekit.targets.emulated.guest import Watch
from edgekit.targets.emulated.symbols import INSTRUCTION_BEGINS, NODE_ENDS, OPERATOR_BEGINS, Symbols

_ORT_BEFORE_NODES: Final = 4
"""Clock readings between the marker and the first node's run: of the session, of its executor, and of the node."""
_ORT_AROUND_NODES: Final = 9
"""Segments that belong to no node, the first included, beside two a node: its run and what follows it."""


class ListedOperator(Protocol):
    """What the runtime says of one operator that it ran (`edgekit.targets.emulated.runner.RunnerOperator`)."""

    @property
    def name(self) -> str:
        """As the runtime calls it."""

    @property
    def type(self) -> str:
        """The runtime's word for the kernel."""

    @property
    def delegated(self) -> bool:
        """Whether a delegate ran it."""

    @property
    def node(self) -> int | None:
        """LiteRT: the node, or the place in the delegate's partition; ExecuTorch: the program's instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCount:
    """A function, and the instructions that it executed for an operator."""

    name: str
    instructions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOperator:
    """One operator of the runtime, as it was executed.

    Attributes:
        name: The runtime's; ``xnnpack operator 12`` where it cannot be told.
        type: The runtime's; the kernel's name where it cannot be told.
        node: As the runtime says it; None where it cannot be told.
        delegated: Whether a delegate ran it.
        segments: Segments of the run that are its.
        instructions: Executed, exactly.
        groups: The same by group of instruction.
        load_bytes: Read by its instructions.
        store_bytes: Written by its instructions.
        kernel: The function with the most instructions.
        kernels: All functions, the largest first.
    """

    name: str
    type: str
    node: int | None
    delegated: bool
    segments: tuple[int, ...]
    instructions: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    load_bytes: int = 0
    store_bytes: int = 0
    kernel: str = ""
    kernels: tuple[KernelCount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """All segments of a run, each in exactly one place.

    Attributes:
        operators: In order of execution.
        overhead: What the runtime did between operators; its ``segments`` may be empty.
        notes: What could not be told, and why; empty where everything was.
    """

    operators: tuple[SegmentOperator, ...]
    overhead: SegmentOperator
    notes: tuple[str, ...] = ()


def attribute(
    counts: Counts, symbols: Symbols, listed: Sequence[ListedOperator], *, runtime: str, watches: Sequence[Watch] = ()
) -> Attribution:
    """Give each segment to an operator of the runtime.

    Args:
        counts: Of a run with these watches (ONNX Runtime: with its profiler, and segments at its clock).
        symbols: Of the same run.
        listed: What the runtime says that it ran, in order of execution; empty: it says nothing.
        runtime: ``litert``, ``executorch`` or ``onnxruntime``; any other: each segment is an operator of its own.
        watches: As given to the run.

    Example:
        >>> found = attribute(counts, symbols, result.operators, runtime="litert", watches=watches)
        >>> found.operators[0].name, found.operators[0].kernel
        ('Convolution (NHWC, F32) IGEMM', 'xnn_f32_igemm_minmax_ukernel_6x8__asm_aarch64_neonfma_cortex_a75_prfm')
    """
    matched = {"litert": _match_litert, "executorch": _match_executorch, "onnxruntime": _match_onnxruntime}
    if runtime in matched:
        operators, notes = matched[runtime](counts, listed, watches)
    else:
        operators, notes = [_unknown(f"segment {index}", index) for index in range(counts.num_segments)], []
    taken = {segment for operator in operators for segment in operator.segments}
    rest = tuple(index for index in range(counts.num_segments) if index not in taken)
    overhead = SegmentOperator(name="runtime", type="overhead", node=None, delegated=False, segments=rest)
    meter = _Meter(counts, symbols)
    return Attribution(
        operators=tuple(meter.measure(operator) for operator in operators),
        overhead=meter.measure(overhead),
        notes=tuple(notes),
    )


class _Meter:
    """Adds up what segments executed."""

    def __init__(self, counts: Counts, symbols: Symbols) -> None:
        self._counts, self._symbols = counts, symbols
        self._executed = counts.counts * counts.lengths[counts.blocks]
        self._groups, self._loads, self._stores = block_profile(counts)
        order = np.argsort(counts.segments, kind="stable")
        self._edges = np.searchsorted(counts.segments[order], np.arange(counts.num_segments + 1))
        self._order = order

    def measure(self, operator: SegmentOperator) -> SegmentOperator:
        """Return the operator with its figures."""
        rows = self._rows(operator.segments)
        blocks, times = self._counts.blocks[rows], self._counts.counts[rows]
        functions = np.zeros(len(self._symbols.names), dtype=np.uint64)
        np.add.at(functions, self._symbols.block_functions[blocks], self._executed[rows])
        kernels = tuple(
            KernelCount(name=self._symbols.names[index], instructions=int(functions[index]))
            for index in sorted(np.flatnonzero(functions).tolist(), key=lambda one: (-int(functions[one]), one))
        )
        kernel = kernels[0].name if kernels else ""
        return replace(
            operator,
            type=operator.type or kernel,
            instructions=int(self._executed[rows].sum()),
            groups=_by_group((self._groups[blocks] * times[:, None]).sum(axis=0)),
            load_bytes=int((self._loads[blocks] * times).sum()),
            store_bytes=int((self._stores[blocks] * times).sum()),
            kernel=kernel,
            kernels=kernels,
        )

    def _rows(self, segments: Iterable[int]) -> NDArray[np.int64]:
        pieces = [self._order[self._edges[one] : self._edges[one + 1]] for one in segments]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


def block_profile(counts: Counts) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return what one execution of each block does: instructions ``u64[B, G]`` by group, bytes loaded and stored."""
    num_blocks, lengths = len(counts.words), counts.lengths.astype(np.int64)
    groups = np.zeros((num_blocks, len(GROUPS)), dtype=np.uint64)
    loads, stores = np.zeros(num_blocks, dtype=np.uint64), np.zeros(num_blocks, dtype=np.uint64)
    if num_blocks:
        words, places = np.unique(np.concatenate(counts.words), return_inverse=True)
        decoded = decode_words(words)
        block = np.repeat(np.arange(num_blocks), lengths)
        places = places.reshape(-1)
        np.add.at(groups, (block, decoded.groups[places]), np.uint64(1))
        np.add.at(loads, block, decoded.load_bytes[places].astype(np.uint64))
        np.add.at(stores, block, decoded.store_bytes[places].astype(np.uint64))
    return groups, loads, stores


def group_totals(counts: Counts) -> tuple[dict[str, int], int, int]:
    """Return the whole region's instructions by group, and the bytes that it loaded and stored."""
    groups, loads, stores = block_profile(counts)
    times = counts.block_counts
    return _by_group((groups * times[:, None]).sum(axis=0)), int((loads * times).sum()), int((stores * times).sum())


def _by_group(totals: NDArray[np.uint64]) -> dict[str, int]:
    return {group: int(total) for group, total in zip(GROUPS, totals, strict=True)}


@dataclass(frozen=True, slots=True)
class _Region:
    """What was executed between two boundaries of the runtime's own loop.

    Attributes:
        head: Its segments before the first operator of a delegate.
        inner: Segments that are one operator of a delegate each.
        is_tail: Whether the loop had ended.
    """

    head: tuple[int, ...]
    inner: tuple[int, ...]
    is_tail: bool = False


def _regions(counts: Counts, watches: Sequence[Watch], boundary: str) -> Iterator[_Region]:
    """Cut the run at each call of the function ``boundary``."""
    head: list[int] = []
    inner: list[int] = []
    for index, (kind, value) in enumerate(counts.boundaries):
        name = watches[value].name if kind is Boundary.WATCH and value < len(watches) else ""
        if name == boundary:
            yield _Region(tuple(head), tuple(inner))
            head, inner = [index], []
        elif name == OPERATOR_BEGINS:
            inner.append(index)
        else:
            head.append(index)
    yield _Region(tuple(head), tuple(inner), is_tail=True)


def _match_litert(
    counts: Counts, listed: Sequence[ListedOperator], watches: Sequence[Watch]
) -> tuple[list[SegmentOperator], list[str]]:
    """A node that no delegate took is a region of its own; a delegate's node holds the delegate's operators."""
    regions = list(_regions(counts, watches, NODE_ENDS))
    inner = [segment for region in regions for segment in region.inner]
    own = [region.head for region in regions if not region.inner and not region.is_tail]
    delegated, other = _split(listed)
    notes: list[str] = []
    operators = _in_order([(segment,) for segment in inner], delegated, "xnnpack operator", notes, delegated=True)
    operators += _in_order(own, other, "operator", notes, delegated=False)
    return sorted(operators, key=lambda operator: operator.segments), notes


def _match_executorch(
    counts: Counts, listed: Sequence[ListedOperator], watches: Sequence[Watch]
) -> tuple[list[SegmentOperator], list[str]]:
    """An instruction of the program is a region; a delegate call holds the delegate's operators."""
    regions = list(_regions(counts, watches, INSTRUCTION_BEGINS))[1:]  # the first comes before every instruction
    operators: list[SegmentOperator] = []
    notes: list[str] = []
    for instruction, region in enumerate(regions):
        delegated, other = _split([one for one in listed if one.node == instruction])
        if region.inner:
            segments = [(segment,) for segment in region.inner]
            label = "xnnpack operator" if len(regions) == 1 else f"instruction {instruction}, xnnpack operator"
            operators += _in_order(segments, delegated, label, notes, delegated=True)
        elif other:
            operators.append(_known(other[0], region.head))
    return operators, notes


def _match_onnxruntime(
    counts: Counts, listed: Sequence[ListedOperator], watches: Sequence[Watch]
) -> tuple[list[SegmentOperator], list[str]]:
    """The profiler asks the clock before and after each node."""
    del watches
    if not listed:
        return [], []
    if counts.num_segments != 2 * len(listed) + _ORT_AROUND_NODES:
        note = (
            f"ONNX Runtime lists {len(listed)} nodes, but asked the clock {counts.num_segments - 1} times: "
            "its nodes are not told apart"
        )
        return [], [note]
    return [_known(one, (_ORT_BEFORE_NODES + 2 * place,)) for place, one in enumerate(listed)], []


def _split(listed: Sequence[ListedOperator]) -> tuple[list[ListedOperator], list[ListedOperator]]:
    return [one for one in listed if one.delegated], [one for one in listed if not one.delegated]


def _in_order(
    segments: Sequence[tuple[int, ...]],
    listed: Sequence[ListedOperator],
    label: str,
    notes: list[str],
    *,
    delegated: bool,
) -> list[SegmentOperator]:
    """Bring segments and the runtime's list together by order, where there are as many of each."""
    if len(segments) == len(listed):
        return [_known(one, own) for one, own in zip(listed, segments, strict=True)]
    if listed:
        notes.append(
            f"the runtime lists {len(listed)} operators where {len(segments)} were executed ({label}s): "
            "they are numbered, not named"
        )
    return [_unknown(f"{label} {place}", *own, delegated=delegated) for place, own in enumerate(segments)]


def _known(listed: ListedOperator, segments: tuple[int, ...]) -> SegmentOperator:
    return SegmentOperator(
        name=listed.name, type=listed.type, node=listed.node, delegated=listed.delegated, segments=segments
    )


def _unknown(name: str, *segments: int, delegated: bool = False) -> SegmentOperator:
    return SegmentOperator(name=name, type="", node=None, delegated=delegated, segments=segments)
