from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgekit.targets.emulated.attribution import Attribution, attribute, group_totals
from edgekit.targets.emulated.counts import Boundary, Counts, CountStatus
from edgekit.targets.emulated.guest import Watch
from edgekit.targets.emulated.symbols import INSTRUCTION_BEGINS, NODE_ENDS, OPERATOR_BEGINS, Symbols

FMLA, LDR_Q, ADD, SDOT, STR_W = 0x4E21CC02, 0x3DC00000, 0x91000400, 0x4E819402, 0xB9000001
BEGIN, OPERATOR, LOOP, CLOCK = "begin", "operator", "loop", "clock"


@dataclass(frozen=True)
class Listed:
    name: str
    type: str = "kind"
    delegated: bool = True
    node: int | None = None


def watches(loop: str) -> tuple[Watch, ...]:
    return tuple(Watch(library=Path("lib.so"), offset=0, name=name) for name in (OPERATOR_BEGINS, loop))


def run_of(events: list[str]) -> tuple[Counts, Symbols]:
    """Segment ``i`` executes function ``i`` ``i + 1`` times: one load, two multiply-adds; and a shared one once."""
    kinds = {BEGIN: (Boundary.BEGIN, 1), OPERATOR: (Boundary.WATCH, 0), LOOP: (Boundary.WATCH, 1)}
    kinds[CLOCK] = (Boundary.SYSCALL, 113)
    size = len(events)
    counts = Counts(
        status=CountStatus.COMPLETE,
        modules=(),
        addresses=np.arange(size + 1, dtype=np.uint64) * 64,
        words=(*(np.array([LDR_Q, FMLA, FMLA], dtype=np.uint32) for _ in events), np.array([ADD], dtype=np.uint32)),
        segments=np.repeat(np.arange(size, dtype=np.uint32), 2),
        blocks=np.array([block for index in range(size) for block in (index, size)], dtype=np.uint32),
        counts=np.array([count for index in range(size) for count in (index + 1, 1)], dtype=np.uint64),
        boundaries=tuple(kinds[event] for event in events),
        load_instructions=0,
        total_instructions=0,
        threads=1,
    )
    symbols = Symbols(
        names=(*(f"kernel_{index}" for index in range(size)), "helper"),
        known=np.ones(size + 1, dtype=np.bool_),
        modules=np.zeros(size + 1, dtype=np.int64),
        block_functions=np.arange(size + 1, dtype=np.int64),
    )
    return counts, symbols


def names(found: Attribution) -> list[tuple[str, tuple[int, ...]]]:
    return [(operator.name, operator.segments) for operator in found.operators]


def assert_every_segment_is_in_one_place(found: Attribution, counts: Counts) -> None:
    parts = (*found.operators, found.overhead)
    assert sorted(segment for one in parts for segment in one.segments) == list(range(counts.num_segments))
    assert sum(one.instructions for one in parts) == counts.steady_instructions


# a node of its own, a delegate with two operators, another node of its own, and what comes after the last
LITERT = [BEGIN, LOOP, OPERATOR, OPERATOR, LOOP, LOOP]


def test_litert_operators_are_those_of_the_delegate_and_nodes_outside_it() -> None:
    counts, symbols = run_of(LITERT)
    listed = [
        Listed("gather", delegated=False, node=0),
        Listed("conv", node=0),
        Listed("add", node=1),
        Listed("top", delegated=False, node=5),
    ]
    found = attribute(counts, symbols, listed, runtime="litert", watches=watches(NODE_ENDS))
    assert names(found) == [("gather", (0,)), ("conv", (2,)), ("add", (3,)), ("top", (4,))]
    assert [operator.node for operator in found.operators] == [0, 0, 1, 5]
    assert found.overhead.segments == (1, 5)
    assert found.notes == ()
    assert_every_segment_is_in_one_place(found, counts)


def test_figures_of_an_operator_are_those_of_its_segment() -> None:
    counts, symbols = run_of(LITERT)
    found = attribute(counts, symbols, [], runtime="litert", watches=watches(NODE_ENDS))
    conv = found.operators[1]
    assert conv.segments == (2,)
    assert conv.instructions == 3 * 3 + 1
    assert {group: count for group, count in conv.groups.items() if count} == {
        "load": 3,
        "vector_float": 6,
        "scalar": 1,
    }
    assert (conv.load_bytes, conv.store_bytes) == (48, 0)
    assert [(kernel.name, kernel.instructions) for kernel in conv.kernels] == [("kernel_2", 9), ("helper", 1)]
    assert conv.kernel == "kernel_2"


def test_operators_are_numbered_and_a_note_says_why_when_the_list_has_another_length() -> None:
    counts, symbols = run_of(LITERT)
    listed = [Listed("gather", delegated=False), Listed("only", node=0), Listed("top", delegated=False)]
    found = attribute(counts, symbols, listed, runtime="litert", watches=watches(NODE_ENDS))
    assert names(found) == [("gather", (0,)), ("xnnpack operator 0", (2,)), ("xnnpack operator 1", (3,)), ("top", (4,))]
    assert found.operators[1].type == "kernel_2"
    assert found.operators[1].node is None
    assert len(found.notes) == 1
    assert "lists 1 operators where 2 were executed" in found.notes[0]
    assert_every_segment_is_in_one_place(found, counts)


def test_executorch_instructions_are_told_apart_by_their_number() -> None:
    events = [BEGIN, LOOP, OPERATOR, OPERATOR, LOOP, LOOP, OPERATOR]
    counts, symbols = run_of(events)
    listed = [Listed("0:conv", node=0), Listed("0:add", node=0), Listed("2:fc", node=2)]
    kernel_call = [*listed, Listed("aten::topk", delegated=False, node=1)]
    found = attribute(counts, symbols, kernel_call, runtime="executorch", watches=watches(INSTRUCTION_BEGINS))
    assert names(found) == [("0:conv", (2,)), ("0:add", (3,)), ("aten::topk", (4,)), ("2:fc", (6,))]
    assert found.overhead.segments == (0, 1, 5)
    assert_every_segment_is_in_one_place(found, counts)
    wrong = attribute(counts, symbols, listed[:1], runtime="executorch", watches=watches(INSTRUCTION_BEGINS))
    assert [name for name, _ in names(wrong)] == [
        "instruction 0, xnnpack operator 0",
        "instruction 0, xnnpack operator 1",
        "instruction 2, xnnpack operator 0",
    ]


def test_onnx_nodes_are_every_second_segment_between_the_sessions_own() -> None:
    listed = [Listed("Conv_0", delegated=False), Listed("Relu_1", delegated=False)]
    counts, symbols = run_of([BEGIN] + [CLOCK] * 12)
    found = attribute(counts, symbols, listed, runtime="onnxruntime")
    assert names(found) == [("Conv_0", (4,)), ("Relu_1", (6,))]
    assert_every_segment_is_in_one_place(found, counts)


def test_onnx_nodes_are_not_guessed_when_the_clock_was_asked_more_often() -> None:
    counts, symbols = run_of([BEGIN] + [CLOCK] * 13)
    found = attribute(counts, symbols, [Listed("a"), Listed("b")], runtime="onnxruntime")
    assert found.operators == ()
    assert "asked the clock 13 times" in found.notes[0]
    assert found.overhead.instructions == counts.steady_instructions


@pytest.mark.parametrize("runtime", ["litert", "executorch", "onnxruntime", "ncnn"])
def test_nothing_is_lost_when_the_runtime_says_nothing(runtime: str) -> None:
    counts, symbols = run_of([BEGIN, LOOP, OPERATOR, LOOP, CLOCK, OPERATOR])
    loop = INSTRUCTION_BEGINS if runtime == "executorch" else NODE_ENDS
    found = attribute(counts, symbols, [], runtime=runtime, watches=watches(loop))
    assert found.notes == ()
    assert_every_segment_is_in_one_place(found, counts)


def test_totals_of_a_run_add_up_by_group() -> None:
    counts, _ = run_of([BEGIN, OPERATOR])
    groups, load_bytes, store_bytes = group_totals(counts)
    assert sum(groups.values()) == counts.steady_instructions == 3 * 3 + 2
    assert (groups["vector_float"], groups["load"], groups["scalar"]) == (6, 3, 2)
    assert (load_bytes, store_bytes) == (48, 0)


def test_dot_products_and_stores_have_groups_of_their_own() -> None:
    counts, _ = run_of([BEGIN])
    words = (np.array([SDOT, STR_W], dtype=np.uint32), np.array([ADD], dtype=np.uint32))
    other = Counts(**{**{name: getattr(counts, name) for name in counts.__dataclass_fields__}, "words": words})
    groups, _, store_bytes = group_totals(other)
    assert (groups["dot_product"], groups["store"], store_bytes) == (1, 1, 4)
