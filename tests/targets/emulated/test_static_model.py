from __future__ import annotations

from pathlib import Path

import a64_code as a64
import numpy as np
import pytest

from edgekit.errors import ToolError
from edgekit.targets.emulated.counts import Boundary, Counts, CountStatus
from edgekit.targets.emulated.static_model import estimate_static, stored_working_sets


def make_counts(blocks: list[list[int]], records: list[tuple[int, int, int]], num_segments: int) -> Counts:
    """Counts of the given blocks; a record is (segment, block, executions)."""
    segments, executed, counts = (np.array(column) for column in zip(*records, strict=True))
    return Counts(
        status=CountStatus.COMPLETE,
        modules=(),
        addresses=np.arange(len(blocks), dtype=np.uint64) * 4096,
        words=tuple(np.array(block, dtype=np.uint32) for block in blocks),
        segments=segments.astype(np.uint32),
        blocks=executed.astype(np.uint32),
        counts=counts.astype(np.uint64),
        boundaries=((Boundary.BEGIN, 1),) * num_segments,
        load_instructions=0,
        total_instructions=0,
        threads=1,
    )


# Core, instruction that accumulates into itself, cycles a step: measured by insn_bench_aarch64 where it has the core.
CHAINS = [
    ("cortex-a53", a64.FMLA[0], 4),
    ("cortex-a72", a64.FMLA[0], 3),
    ("cortex-a76", a64.FMLA[0], 2),
    ("cortex-x1", a64.FMLA[0], 2),
    ("firestorm", a64.FMLA[0], 4),
    ("cortex-a53", a64.FMLA_OF_ITSELF, 8),
    ("cortex-a72", a64.FMLA_OF_ITSELF, 7),
    ("cortex-a76", a64.FMLA_OF_ITSELF, 4),
    ("cortex-a53", a64.FADD_OF_ITSELF, 4),
    ("cortex-a72", a64.FADD_OF_ITSELF, 4),
    ("cortex-a76", a64.FADD_OF_ITSELF, 2),
    ("firestorm", a64.FADD_OF_ITSELF, 3),
    ("cortex-a76", a64.SDOT, 1),
]


@pytest.mark.parametrize(("core", "word", "step"), CHAINS)
def test_blocks_take_a_latency_a_step_when_each_instruction_needs_the_last(
    core: str, word: int, step: int, tmp_path: Path
) -> None:
    assert a64.block_cycles([word] * 24, core, tmp_path) == pytest.approx(24 * step, rel=0.01)


@pytest.mark.parametrize(
    ("core", "a_cycle"), [("cortex-a53", 1), ("cortex-a55", 1), ("cortex-a72", 1), ("cortex-a76", 2), ("firestorm", 4)]
)
def test_blocks_reach_the_measured_throughput_when_instructions_are_independent(
    core: str, a_cycle: float, tmp_path: Path
) -> None:
    code = [*a64.FMLA] * 2 if core != "firestorm" else [0x4E3FCFC0 + i for i in range(16)]
    cycles = a64.block_cycles(code * 3, core, tmp_path)
    assert len(code) * 3 / cycles == pytest.approx(a_cycle, rel=0.02)


@pytest.mark.parametrize(
    ("core", "word", "a_cycle"),
    [
        ("cortex-a53", a64.LOAD_Q, 0.5),
        ("cortex-a55", a64.LOAD_Q, 0.5),
        ("cortex-a72", a64.LOAD_Q, 1),
        ("cortex-a76", a64.LOAD_Q, 2),
        ("cortex-x1", a64.LOAD_Q, 3),
        ("cortex-a53", a64.LOAD_X, 1),
    ],
)
def test_blocks_load_at_the_measured_rate_when_everything_hits(
    core: str, word: int, a_cycle: float, tmp_path: Path
) -> None:
    assert 40 / a64.block_cycles([word] * 40, core, tmp_path) == pytest.approx(a_cycle, rel=0.02)


def test_blocks_hide_a_latency_out_of_order_but_not_in_order_when_independent_work_follows(tmp_path: Path) -> None:
    # A chain of multiplications; each is followed by a use of it and then by work that does not need it.
    chain = [a64.MUL, 0x9B0A7CA9, *[a64.ADD_X3] * 4]  # mul x5, x6, x7; mul x9, x5, x10; add x3, x3, #1 four times
    waits = a64.block_cycles(chain, "cortex-a53", tmp_path)
    assert waits >= 4 + 4  # the second multiplication waits four cycles, and the additions behind it with it
    assert a64.block_cycles(chain, "cortex-a72", tmp_path) == pytest.approx(4, abs=0.6)  # four dependent additions


@pytest.mark.parametrize(("core", "cycles"), [("cortex-a57", 14), ("cortex-a72", 14), ("cortex-a76", 8)])
def test_blocks_dispatch_one_operation_a_port_and_cycle_when_the_guide_says_so(
    core: str, cycles: int, tmp_path: Path
) -> None:
    runs = [*a64.SMULL, *a64.SMULL, *a64.SADALP, *a64.SADALP]  # F0 only, then F1 only: they meet where one run ends
    assert a64.block_cycles(runs, core, tmp_path) == pytest.approx(cycles, abs=0.5)
    mixed = [word for pair in zip(runs[:8], runs[8:], strict=True) for word in pair]
    assert a64.block_cycles(mixed, core, tmp_path) == pytest.approx(8, abs=0.5)


def test_blocks_pair_a_narrow_load_but_not_a_wide_one_with_arithmetic_when_on_a55(tmp_path: Path) -> None:
    with_narrow = a64.block_cycles([*a64.FMLA, a64.LOAD_D], "cortex-a55", tmp_path)
    with_wide = a64.block_cycles([*a64.FMLA, a64.LOAD_Q], "cortex-a55", tmp_path)
    assert with_narrow == pytest.approx(8, abs=0.1)
    assert with_wide == pytest.approx(10, abs=0.1)


# What a Cortex-A53 takes for two instructions: measured by qsdr-benchmarks (daniestevez/qsdr).
PAIRS = [
    ("ldr d0, [x1]", "fadd v1.4s, v30.4s, v31.4s", 2),
    ("fadd v1.4s, v30.4s, v31.4s", "ldr d0, [x1]", 2),
    ("ldr x0, [x1]", "fadd v1.4s, v30.4s, v31.4s", 2),
    ("fadd v1.4s, v30.4s, v31.4s", "ldr x0, [x1]", 1),
    ("fadd v1.4s, v30.4s, v31.4s", "str q2, [x1]", 2),
    ("str q2, [x1]", "fadd v1.4s, v30.4s, v31.4s", 2),
    ("ldr d0, [x1]", "str q2, [x1, #64]", 2),
    ("ldr d0, [x1]", "str d2, [x1, #64]", 2),
    ("str d2, [x1, #64]", "ldr d0, [x1]", 2),
    ("ins v1.d[1], x0", "str q2, [x1]", 2),
    ("fadd v1.4s, v30.4s, v31.4s", "str x0, [x1]", 1),
    ("str x0, [x1]", "fadd v1.4s, v30.4s, v31.4s", 2),
    ("fadd v1.4s, v30.4s, v31.4s", "mov x0, v2.d[0]", 2),
    ("fadd v1.2s, v30.2s, v31.2s", "ldr d0, [x1]", 1),
    ("ldr d0, [x1]", "fadd v1.2s, v30.2s, v31.2s", 1),
    ("ldr q0, [x1]", "ldr q2, [x1]", 4),
    ("ldr q0, [x1]", "fadd v1.4s, v0.4s, v0.4s", 5),
    ("ldr d0, [x1]", "fadd v1.4s, v0.4s, v0.4s", 4),
    ("ldp q0, q1, [x1]", "fadd v2.4s, v0.4s, v0.4s", 5),
    ("ldp q0, q1, [x1]", "fadd v2.4s, v1.4s, v1.4s", 7),
    ("ld1 {v0.4s-v3.4s}, [x1]", "fadd v4.4s, v2.4s, v2.4s", 9),
    ("ld1 {v0.4s-v3.4s}, [x1]", "fadd v4.4s, v3.4s, v3.4s", 11),
    ("stp q0, q1, [x1]", "fadd v2.4s, v30.4s, v31.4s", 3),
]


@pytest.mark.skipif(a64.assembler() is None, reason="needs binutils-aarch64-linux-gnu, to assemble the instructions")
@pytest.mark.parametrize(("first", "second", "measured"), PAIRS)
def test_blocks_pair_as_measured_when_on_a53(first: str, second: str, measured: int, tmp_path: Path) -> None:
    code = a64.assemble([first, second], tmp_path)
    assert a64.block_cycles(code, "cortex-a53", tmp_path) == pytest.approx(measured, abs=0.05)


def test_blocks_keep_vector_loads_from_the_accumulators_cycle_when_on_a53(tmp_path: Path) -> None:
    # ncnn's guide to the A53: three multiply-accumulates and a load in turn run without a stall, other ratios do not.
    tuned = [word for group in range(2) for word in (a64.LOAD_D, *a64.FMLA[3 * group : 3 * group + 3])]
    assert a64.block_cycles(tuned, "cortex-a53", tmp_path) == pytest.approx(8, abs=0.05)
    natural = [*a64.FMLA, a64.LOAD_D]  # the load waits for the accumulators of the last four
    assert a64.block_cycles(natural, "cortex-a53", tmp_path) == pytest.approx(13, abs=0.05)
    assert a64.block_cycles(natural, "cortex-a55", tmp_path) == pytest.approx(8, abs=0.05)


def test_blocks_keep_vector_stores_apart_when_on_a55(tmp_path: Path) -> None:
    stores = [a64.STORE_Q_STEP] * 4
    assert a64.block_cycles(stores, "cortex-a55", tmp_path) == pytest.approx(8, abs=0.05)
    assert a64.block_cycles(stores, "cortex-a53", tmp_path) == pytest.approx(4, abs=0.05)


def test_stored_working_sets_count_what_vectors_store_when_nothing_else_is_known() -> None:
    store_x = 0xF9000022  # str x2, [x1]
    counts = make_counts([[a64.STORE_Q_STEP, store_x, a64.LOAD_Q]], [(0, 0, 10), (2, 0, 5)], num_segments=3)
    assert stored_working_sets(counts) == (2 * 16 * 10, 0, 2 * 16 * 5)


def test_estimate_static_sums_executions_by_segment_when_given_counts(tmp_path: Path) -> None:
    blocks = [[a64.FMLA[0]] * 10, list(a64.FMLA) * 2]
    counts = make_counts(blocks, [(0, 0, 100), (1, 0, 50), (1, 1, 200)], num_segments=3)
    cores = [a64.placed("cortex-a76"), a64.placed("cortex-a72")]
    big, old = estimate_static(counts, cores, coresim=a64.coresim_program(), work_dir=tmp_path)
    assert big.cycles_by_segment == pytest.approx((100 * 20, 50 * 20 + 200 * 8, 0), rel=0.02)
    assert old.cycles_by_segment == pytest.approx((100 * 30, 50 * 30 + 200 * 16, 0), rel=0.02)
    assert big.cycles == pytest.approx(sum(big.cycles_by_segment))
    assert big.milliseconds(cores[0].place) == pytest.approx(big.cycles / 2e6)


def test_estimate_static_streams_from_memory_when_the_working_set_leaves_the_caches(tmp_path: Path) -> None:
    counts = make_counts([[a64.FMLA[0]] * 10], [(0, 0, 1000), (1, 0, 1000)], num_segments=2)
    sets = [8e6, 0.0]  # at 4 bytes a cycle
    program = a64.coresim_program()
    (big,) = estimate_static(counts, [a64.placed("cortex-a76")], coresim=program, work_dir=tmp_path, working_sets=sets)
    (little,) = estimate_static(
        counts, [a64.placed("cortex-a53")], coresim=program, work_dir=tmp_path, working_sets=sets
    )
    assert big.cycles_by_segment == pytest.approx((2e6, 20e3), rel=0.02)
    assert little.cycles_by_segment[0] == pytest.approx(2e6 + 40e3, rel=0.02)
    assert big.memory_read_bytes == 8e6


def test_estimate_static_has_no_memory_term_when_the_model_stays_in_the_last_cache(tmp_path: Path) -> None:
    counts = make_counts([[a64.FMLA[0]] * 10], [(0, 0, 1000)], num_segments=1)
    (estimate,) = estimate_static(
        counts,
        [a64.placed("cortex-a76")],
        coresim=a64.coresim_program(),
        work_dir=tmp_path,
        working_sets=[500 * 1024.0],
    )
    assert estimate.cycles == pytest.approx(20e3, rel=0.02)


def test_estimate_static_refuses_when_working_sets_are_of_another_run(tmp_path: Path) -> None:
    counts = make_counts([[a64.FMUL]], [(0, 0, 1)], num_segments=1)
    with pytest.raises(ValueError, match="expected 1 working sets"):
        estimate_static(
            counts, [a64.placed("cortex-a76")], coresim=Path("coresim"), work_dir=tmp_path, working_sets=[1.0, 2.0]
        )


def test_estimate_static_says_what_failed_when_coresim_does_not_start(tmp_path: Path) -> None:
    counts = make_counts([[a64.FMUL]], [(0, 0, 1)], num_segments=1)
    with pytest.raises(ToolError, match="cannot be started"):
        estimate_static(counts, [a64.placed("cortex-a76")], coresim=tmp_path / "missing", work_dir=tmp_path)
