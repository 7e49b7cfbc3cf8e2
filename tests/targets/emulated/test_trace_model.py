from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import a64_code as a64
import numpy as np
import pytest
from test_static_model import make_counts

from edgekit.errors import ToolError
from edgekit.targets.emulated.trace_model import TraceModel, prepare_trace, read_trace_result

BASE = 0x4000_0000
CODE = 0x40_0000
LOOP = [a64.LOAD_Q_STEP, a64.FMLA_OF_LOADED, a64.COUNT_DOWN, a64.BRANCH_BACK]  # one 16-byte load a turn


def loop_of_loads(turns: int, stride: int = 16, wrap: int | None = None, code: list[int] | None = None) -> bytes:
    """A trace of a loop that loads through memory; with ``wrap`` it starts over after so many bytes."""
    parts = [a64.define(0, CODE, code or LOOP), a64.segment(0)]
    for turn in range(turns):
        offset = turn * stride if wrap is None else turn * stride % wrap
        parts.append(a64.execute(0, [(BASE + offset, 0, False)]))
    return b"".join([*parts, a64.END])


def cycles(stream: bytes, core: str, folder: Path, code: list[int] | None = None, **place: float) -> float:
    placed = a64.placed(core, replace(a64.PLACE, **place))
    document = a64.run_trace(stream, code or LOOP, [placed], folder)
    (estimate,) = read_trace_result_of(document, [placed], folder)
    return estimate.cycles


def read_trace_result_of(document: dict[str, object], cores: list[object], folder: Path) -> tuple[object, ...]:
    path = folder / "document.json"
    path.write_text(json.dumps(document))
    return read_trace_result(path, cores)  # type: ignore[arg-type]


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76"])
def test_trace_is_bound_by_memory_bandwidth_when_loads_stream(core: str, tmp_path: Path) -> None:
    turns = 200_000  # 3.2 MB, more than any cache here
    slow = cycles(loop_of_loads(turns), core, tmp_path, memory_bandwidth_gb_s=2.0)  # a byte a cycle
    fast = cycles(loop_of_loads(turns), core, tmp_path, memory_bandwidth_gb_s=80.0)
    assert slow == pytest.approx(turns * 16, rel=0.25)
    assert fast < 0.75 * slow


def test_trace_prefetches_on_when_fill_buffers_were_short(tmp_path: Path) -> None:
    turns = 60_000  # lines; 200 ns are 400 cycles, in which the A72's six fill buffers of L1 bring 1 byte a cycle
    streamed = cycles(
        loop_of_loads(turns, stride=64), "cortex-a72", tmp_path, memory_bandwidth_gb_s=7.4, memory_latency_ns=200.0
    )
    assert turns * 64 / streamed > 2.2  # the prefetches to L2, twice as many as its distance when one was dropped


def test_trace_costs_no_memory_when_the_data_stay_in_the_first_level(tmp_path: Path) -> None:
    stream = loop_of_loads(50_000, wrap=8192)
    document = a64.run_trace(stream, LOOP, [a64.placed("cortex-a76")], tmp_path)
    (segment,) = document["cores"][0]["segments"]
    assert document["passes"] == 2  # short streams are run again, warm
    assert segment[2] == 0  # misses of L1
    assert segment[4] == 0  # reads from memory
    assert segment[0] / 50_000 == pytest.approx(2, abs=0.1)  # the accumulation decides


def test_trace_pays_latency_when_strides_are_too_long_to_prefetch(tmp_path: Path) -> None:
    near = cycles(loop_of_loads(20_000, stride=64), "cortex-a53", tmp_path)
    far = cycles(loop_of_loads(20_000, stride=4096 + 64), "cortex-a53", tmp_path)
    assert far > 1.5 * near


def test_trace_gains_from_a_prefetch_instruction_when_the_core_does_not_prefetch_that_far(tmp_path: Path) -> None:
    # Three streams at once are more than the two that an A53 follows by itself.
    code = [a64.LOAD_Q_STEP, a64.PREFETCH_512, a64.COUNT_DOWN, a64.BRANCH_BACK]
    without = [a64.LOAD_Q_STEP, 0xD503201F, a64.COUNT_DOWN, a64.BRANCH_BACK]
    jump = 4096 * 33 + 64 * 7  # no stride that a stream detector takes

    def stream(words: list[int]) -> bytes:
        parts = [a64.define(0, CODE, words), a64.segment(0)]
        # 1 KiB pieces far from each other, each a new stream
        places = [BASE + turn // 64 * jump + turn % 64 * 16 for turn in range(8_000)]
        parts += [a64.execute(0, [(place, 0, False)]) for place in places]
        return b"".join([*parts, a64.END])

    assert cycles(stream(code), "cortex-a53", tmp_path, code) < 0.9 * cycles(
        stream(without), "cortex-a53", tmp_path, without
    )


def test_trace_reads_no_memory_when_stores_write_whole_lines(tmp_path: Path) -> None:
    code = [a64.STORE_Q_STEP, a64.ADD_X3, a64.COUNT_DOWN, a64.BRANCH_BACK]

    def reads_and_writes(step: int) -> tuple[int, int]:
        parts = [a64.define(0, CODE, code), a64.segment(0)]
        parts += [a64.execute(0, [(BASE + turn * step, 0, True)]) for turn in range(200_000)]
        document = a64.run_trace(b"".join([*parts, a64.END]), code, [a64.placed("cortex-a72")], tmp_path)
        (segment,) = document["cores"][0]["segments"]
        return segment[4], segment[5]

    whole_reads, whole_writes = reads_and_writes(16)
    part_reads, _ = reads_and_writes(64)  # a quarter of each line
    assert whole_reads == 0
    assert whole_writes > 30_000
    assert part_reads > 150_000


def test_trace_pays_for_mispredicted_branches_when_their_direction_is_random(tmp_path: Path) -> None:
    block, other = [a64.ADD_X3, a64.BRANCH_BACK], [a64.ADD_X4, 0x17FFFFFF]  # ...; b back
    flips = np.random.default_rng(1).random(40_000) < 0.5

    def run(taken: np.ndarray) -> float:
        parts = [a64.define(0, CODE, block), a64.define(1, CODE + 8, other), a64.segment(0)]
        for jump in taken:
            parts.append(a64.execute(0))
            if not jump:
                parts.append(a64.execute(1))
        return cycles(b"".join([*parts, a64.END]), "cortex-a72", tmp_path, [*block, *other])

    random, steady = run(flips), run(np.arange(40_000) % 2 == 0)
    assert random > steady + 0.4 * 40_000 * 15 * 0.8


def test_trace_gives_each_core_its_own_cycles_when_several_share_one_stream(tmp_path: Path) -> None:
    cores = [a64.placed("cortex-a53"), a64.placed("cortex-a76"), a64.placed("cortex-x1")]
    stream = loop_of_loads(30_000)
    together = a64.run_trace(stream, LOOP, cores, tmp_path)["cores"]
    for core, entry in zip(cores, together, strict=True):
        alone = a64.run_trace(stream, LOOP, [core], tmp_path)["cores"]
        assert alone == [entry]


def test_trace_books_cycles_to_the_segment_when_segments_follow_each_other(tmp_path: Path) -> None:
    parts = [a64.define(0, CODE, list(a64.FMLA) * 2), a64.segment(0)]
    parts += [a64.execute(0)] * 100
    parts += [a64.segment(1), *[a64.execute(0)] * 300, a64.segment(2), a64.END]
    document = a64.run_trace(b"".join(parts), list(a64.FMLA), [a64.placed("cortex-a76")], tmp_path)
    first, second, third = document["cores"][0]["segments"]
    assert first[1] == 100 * 16
    assert second[0] == pytest.approx(300 * 8, rel=0.02)
    assert third[:2] == [0, 0]


def test_prepare_trace_makes_a_sink_that_reads_the_stream_when_the_guest_runs(tmp_path: Path) -> None:
    counts = make_counts([LOOP], [(0, 0, 1)], num_segments=1)
    cores = [a64.placed("cortex-a72"), a64.placed("cortex-a55")]
    model = prepare_trace(counts, cores, coresim=a64.coresim_program(), work_dir=tmp_path)
    assert isinstance(model, TraceModel)
    subprocess.run(model.sink.command, input=loop_of_loads(5000), check=True, timeout=60)
    out_of_order, in_order = model.read()
    assert (out_of_order.core, in_order.core) == ("cortex-a72", "cortex-a55")
    assert out_of_order.warm
    assert in_order.cycles > out_of_order.cycles
    assert out_of_order.cycles == sum(out_of_order.cycles_by_segment)


def test_read_trace_result_refuses_when_the_stream_was_cut_off(tmp_path: Path) -> None:
    stream = loop_of_loads(100).removesuffix(a64.END)
    placed = a64.placed("cortex-a72")
    document = a64.run_trace(stream, LOOP, [placed], tmp_path)
    with pytest.raises(ToolError, match="ended before"):
        read_trace_result_of(document, [placed], tmp_path)


def test_read_trace_result_refuses_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no readable result"):
        read_trace_result(tmp_path / "trace.json", [])


@pytest.mark.parametrize(
    "stream",
    [
        a64.define(0, CODE, LOOP)[:-3],
        a64.execute(7),
        a64.define(1 << 30, CODE, LOOP),
        a64.define(0, CODE, LOOP) + a64.execute(0, [(BASE, 0, False)])[:-1],
    ],
    ids=["cut off", "not defined", "number too large", "access cut off"],
)
def test_coresim_ends_with_a_message_when_the_stream_is_damaged(stream: bytes, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        a64.run_trace(stream, LOOP, [a64.placed("cortex-a72")], tmp_path)
    assert error.value.returncode == 3
