from __future__ import annotations

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from guest_programs import COUNTED, KERNEL, GuestCompiler, bare_persona

from edgekit.errors import MissingToolError, StageTimeoutError, ToolError
from edgekit.targets.emulated.counts import Boundary, Counts, CountStatus, read_counts
from edgekit.targets.emulated.guest import (
    GuestCrashError,
    GuestLimits,
    GuestRun,
    TraceSink,
    Watch,
    read_place,
    run_guest,
)
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.symbols import library_functions, read_symbols

Start = Callable[..., GuestRun]

THREADS = (
    KERNEL
    + """
#include <pthread.h>
#include <string.h>
#include <unistd.h>
static void *work(void *unused) { (void)unused; kernel(50000); return 0; }
static void *spin_on(void *unused) { for (;;) kernel(50000); return unused; }
static void *sleep_on(void *unused) { pause(); return unused; }
int main(int count, char **values) {
    pthread_t thread;
    const char *when = count > 1 ? values[1] : "";
    if (!strcmp(when, "spinning")) { pthread_create(&thread, 0, spin_on, 0); usleep(50000); }
    if (!strcmp(when, "sleeping")) { pthread_create(&thread, 0, sleep_on, 0); usleep(50000); }
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    if (!strcmp(when, "working")) { pthread_create(&thread, 0, work, 0); pthread_join(thread, 0); }
    kernel(count > 2 ? atol(values[2]) : 1000);
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return 0;
}
"""
)
CRASH = (
    KERNEL
    + """
int main(int count, char **values) {
    (void)values;
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    edgekit_mark(EDGEKIT_SEGMENT, 3, 0);
    if (count > 1) abort();
    *(volatile int *)8 = 1;
}
"""
)
ENDLESS = KERNEL + "int main(void) { edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0); for (;;) kernel(1000); }"
# what a table of pointers, a clock and random numbers do to a count
CHANGING = (
    KERNEL
    + """
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
int main(int count, char **values) {
    struct timespec now;
    unsigned char random;
    char *copy = strdup(values[count - 1]);
    void *place = malloc(100);
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    clock_gettime(CLOCK_REALTIME, &now);
    getrandom(&random, 1, 0);
    kernel(1 + now.tv_nsec % 1000 + now.tv_sec % 1000);
    kernel(1 + random);
    kernel(1 + ((uintptr_t)place >> 4) % 4096);
    kernel(1 + strlen(copy));
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return 0;
}
"""
)


@pytest.fixture
def start(plugin_tools: Toolchain, tmp_path: Path) -> Start:
    def run(*command: object, folder: str = "work", seconds: float = 60.0, **options: object) -> GuestRun:
        limits = options.pop("limits", GuestLimits(seconds=seconds))
        return run_guest(
            plugin_tools,
            bare_persona(plugin_tools),
            [str(part) for part in command],
            work_dir=tmp_path / folder,
            limits=limits,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        )

    return run


def counts_of(run: GuestRun) -> Counts:
    return read_counts(run.counts)


def test_counts_grow_by_three_a_round_in_each_segment_and_in_load(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("counted", COUNTED)
    few, many = counts_of(start(program, 1000)), counts_of(start(program, 3000, folder="again"))
    assert few.status is CountStatus.COMPLETE
    assert few.threads == 1
    assert few.boundaries == ((Boundary.BEGIN, 1), (Boundary.MARKER, 42))
    grown = many.segment_instructions.astype(int) - few.segment_instructions.astype(int)
    assert grown.tolist() == [3 * 2000, 2 * 3 * 2000]  # the second region of the program is not counted
    assert 3000 < int(few.segment_instructions[0]) < 3100
    assert many.load_instructions - few.load_instructions == 10 * 3 * 2000
    assert few.total_instructions > few.load_instructions + few.steady_instructions


def test_each_call_of_a_watched_function_begins_its_segment(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("counted", COUNTED)
    functions = library_functions(program)
    offset = int(functions.starts[functions.names.index("kernel")])
    counts = counts_of(start(program, 1000, watch=[Watch(library=program, offset=offset, name="kernel")]))
    kinds = [kind for kind, _ in counts.boundaries]
    assert kinds == [Boundary.BEGIN, Boundary.WATCH, Boundary.MARKER, Boundary.WATCH]
    begin, first, marker, second = counts.segment_instructions.tolist()
    assert first > 3000
    assert begin < 100
    assert marker < 100
    symbols = read_symbols(counts)
    kernel = [name == "kernel" for name in symbols.names]
    of_kernel = {
        int(segment)
        for segment, block in zip(counts.segments, counts.blocks, strict=True)
        if kernel[symbols.block_functions[block]]
    }
    assert of_kernel == {1, 3}  # not one block of it is left in the segment before
    assert second - first == 3 * 1000


def test_a_system_call_begins_a_segment_when_it_was_named(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("changing", CHANGING)
    counts = counts_of(start(program, segment_syscall=113))
    assert counts.boundaries == ((Boundary.BEGIN, 1), (Boundary.SYSCALL, 113))


def test_whole_program_is_counted_when_it_sets_no_markers(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("plain", KERNEL + "int main(void) { kernel(5000); return 0; }")
    counts = counts_of(start(program, whole=True))
    assert counts.status is CountStatus.COMPLETE
    assert counts.boundaries == ((Boundary.BEGIN, 0),)
    assert counts.steady_instructions == counts.total_instructions > 15000


def test_markers_win_when_the_whole_program_was_asked_for(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("counted", COUNTED)
    marked, whole = counts_of(start(program, 500)), counts_of(start(program, 500, folder="whole", whole=True))
    assert whole.boundaries == marked.boundaries
    assert whole.segment_instructions.tolist() == marked.segment_instructions.tolist()
    assert whole.load_instructions == marked.load_instructions


def test_a_program_without_markers_says_that_no_region_began(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("plain", KERNEL + "int main(void) { kernel(5000); return 0; }")
    counts = counts_of(start(program))
    assert counts.status is CountStatus.NO_REGION
    assert counts.num_segments == 0


def test_exit_code_and_output_come_back(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("talking", '#include <stdio.h>\nint main(void) { puts("hello"); return 7; }')
    run = start(program)
    assert (run.exit_code, run.stdout) == (7, "hello\n")


def test_a_crash_names_the_signal_and_the_segment(start: Start, compile_guest: GuestCompiler) -> None:
    with pytest.raises(GuestCrashError, match=r"SIGSEGV while running the model, segment 1 \(marker 3\)") as caught:
        start(compile_guest("crash", CRASH))
    assert caught.value.place is not None
    assert (caught.value.place.segment, caught.value.place.value) == (1, 3)


def test_an_abort_tells_the_memory_limit(start: Start, compile_guest: GuestCompiler) -> None:
    limits = GuestLimits(seconds=60, memory_bytes=512 << 20)
    with pytest.raises(GuestCrashError, match=r"SIGABRT.*memory limit was 512 MiB"):
        start(compile_guest("crash", CRASH), "abort", limits=limits)


def test_an_endless_loop_is_stopped_by_the_instruction_limit(start: Start, compile_guest: GuestCompiler) -> None:
    limits = GuestLimits(instructions=20_000_000, seconds=60)
    with pytest.raises(StageTimeoutError, match="limit of 20,000,000 instructions while running the model"):
        start(compile_guest("endless", ENDLESS), limits=limits)


def test_a_time_limit_leaves_no_process_behind(start: Start, compile_guest: GuestCompiler, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(StageTimeoutError, match=r"longer than 1 s.*while running the model"):
        start(compile_guest("endless", ENDLESS), seconds=1.0)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    place = read_place(tmp_path / "work" / "counts.bin")
    assert place is not None
    assert place.instructions > 0


def test_memory_beyond_the_limit_is_refused_to_the_guest(start: Start, compile_guest: GuestCompiler) -> None:
    source = "#include <stdlib.h>\nint main(void) { return malloc(1500u << 20) ? 0 : 9; }"
    program = compile_guest("hungry", source)
    assert start(program).exit_code == 0
    assert start(program, limits=GuestLimits(seconds=60, memory_bytes=256 << 20)).exit_code == 9


def test_a_second_thread_that_works_is_flagged(start: Start, compile_guest: GuestCompiler) -> None:
    counts = counts_of(start(compile_guest("threads", THREADS), "working"))
    assert counts.threads == 2
    assert not counts.exact


def test_a_thread_that_sleeps_changes_no_count(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("threads", THREADS)
    alone = counts_of(start(program, "alone000"))
    beside = counts_of(start(program, "sleeping", folder="beside"))
    assert (alone.threads, beside.threads) == (1, 1)
    assert alone.exact
    assert beside.exact
    assert beside.instructions_by_module()[program.name] == alone.instructions_by_module()[program.name]


def test_a_thread_that_spins_beside_is_seen_and_not_counted(start: Start, compile_guest: GuestCompiler) -> None:
    program = compile_guest("threads", THREADS)
    rounds = 5_000_000  # long enough for the other thread to get its turn
    alone = counts_of(start(program, "alone000", rounds))
    beside = counts_of(start(program, "spinning", rounds, folder="beside"))
    assert beside.threads == 2
    assert beside.exact
    assert beside.instructions_by_module()[program.name] == alone.instructions_by_module()[program.name]


def test_a_forked_child_is_not_counted(start: Start, compile_guest: GuestCompiler) -> None:
    source = (
        KERNEL
        + """
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **values) {
    (void)values;
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    kernel(1000);
    if (count > 1) { if (fork() == 0) { kernel(1000000); _exit(0); } wait(0); }
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return 0;
}
"""
    )
    program = compile_guest("forking", source)
    counts = counts_of(start(program, "fork"))
    assert counts.status is CountStatus.COMPLETE
    assert counts.instructions_by_module()[program.name] < 4000


def test_runs_repeat_when_folders_clock_and_addresses_differ(
    start: Start, compile_guest: GuestCompiler, tmp_path: Path
) -> None:
    program = compile_guest("changing", CHANGING)
    seen = set()
    for number in range(4):
        folder = "a, b" + "x" * number * 9  # a comma too: qemu splits its plugin arguments at commas
        (tmp_path / folder).mkdir()
        data = tmp_path / folder / "data"
        data.write_text("")
        counts = counts_of(start(program, data, folder=folder))
        seen.add((counts.steady_instructions, counts.fingerprint()))
    assert len(seen) == 1


def test_a_program_of_the_users_keeps_its_clock(start: Start, compile_guest: GuestCompiler) -> None:
    source = """
#include <stdio.h>
#include <time.h>
int main(void) { struct timespec now; clock_gettime(CLOCK_REALTIME, &now); printf("%ld", (long)now.tv_sec); return 0; }
"""
    program = compile_guest("clock", source)
    assert int(start(program, repeatable=False).stdout) > 1_700_000_000
    assert int(start(program, repeatable=True).stdout) == 0


@dataclass
class Trace:
    executed: Counter[tuple[int, int]]
    words: dict[int, tuple[int, ...]]
    accesses: list[tuple[int, int, bool]]
    ended: bool = False


def parse_trace(content: bytes) -> Trace:
    trace, at, segment = Trace(Counter(), {}, []), 0, 0

    def take(layout: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{layout}", content, at)
        at += struct.calcsize(f"<{layout}")
        return values

    while at < len(content):
        (mark,) = take("I")
        if mark == 0xFFFFFFFD:
            trace.ended = True
        elif mark == 0xFFFFFFFE:
            block, _, size = take("IQI")
            trace.words[block] = take(f"{size}I")
        elif mark == 0xFFFFFFFF:
            (segment,) = take("I")
        else:
            assert mark in trace.words
            trace.executed[segment, mark] += 1
            (size,) = take("I")
            for access in take(f"{size}Q"):
                trace.accesses.append((access >> 12, (access >> 1) & 0x7FF, bool(access & 1)))
    return trace


def copying_sink(path: Path) -> TraceSink:
    code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))"
    return TraceSink(command=(sys.executable, "-c", code, str(path)))


def test_the_trace_holds_what_was_counted(start: Start, compile_guest: GuestCompiler, tmp_path: Path) -> None:
    program = compile_guest("counted", COUNTED)
    run = start(program, 1000, trace=copying_sink(tmp_path / "trace"))
    counts, trace = counts_of(run), parse_trace((tmp_path / "trace").read_bytes())
    assert trace.ended
    rows = zip(counts.segments.tolist(), counts.blocks.tolist(), counts.counts.tolist(), strict=True)
    assert trace.executed == {(segment, block): count for segment, block, count in rows}
    assert all(tuple(counts.words[block].tolist()) == words for block, words in trace.words.items())


def test_the_trace_has_each_access_once_a_line(start: Start, compile_guest: GuestCompiler, tmp_path: Path) -> None:
    source = (
        KERNEL
        + """
static unsigned char data[64 * 8] __attribute__((aligned(64)));
int main(void) {
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    __asm__ volatile("mov x9, %0\\n mov x10, #8\\n1: ldr q0, [x9]\\n str q0, [x9, #32]\\n ldr q1, [x9, #56]\\n"
                     " add x9, x9, #64\\n subs x10, x10, #1\\n b.ne 1b" :: "r"(data)
                     : "x9", "x10", "v0", "v1", "memory");
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return (int)(((unsigned long)data >> 12) & 1);
}
"""
    )
    program = compile_guest("accesses", source, "-static", "-no-pie")
    start(program, trace=copying_sink(tmp_path / "trace"))
    trace = parse_trace((tmp_path / "trace").read_bytes())
    listing = subprocess.run(["aarch64-linux-gnu-nm", str(program)], capture_output=True, text=True, check=True).stdout
    data = next(int(line.split()[0], 16) for line in listing.splitlines() if line.endswith(" data"))
    own = [(address - data, store) for address, _, store in trace.accesses if data <= address < data + 64 * 9]
    wanted = []
    for line in range(0, 64 * 8, 64):
        wanted += [(line, False), (line + 32, True), (line + 56, False), (line + 64, False)]  # the last crosses lines
    assert own == wanted


def test_a_reader_that_goes_away_stops_the_guest(start: Start, compile_guest: GuestCompiler) -> None:
    with pytest.raises(ToolError, match="reader of the trace"):
        start(compile_guest("counted", COUNTED), 1_000_000, trace=TraceSink(command=("true",)))


def test_a_reader_that_is_not_there_is_named(start: Start, compile_guest: GuestCompiler) -> None:
    with pytest.raises(MissingToolError, match="reader of the trace cannot be started"):
        start(compile_guest("counted", COUNTED), trace=TraceSink(command=("/nowhere/coresim",)))


def test_a_program_that_is_not_there_is_named(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"expected the guest's program at .*nowhere"):
        start(tmp_path / "nowhere")


def test_qemu_that_refuses_to_start_is_quoted(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(ToolError, match=r"qemu did not start the guest: .*(script|Exec format|exit code)"):
        start(program)
