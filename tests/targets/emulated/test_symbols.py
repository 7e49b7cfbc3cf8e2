from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from guest_programs import GuestCompiler

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.targets.emulated.counts import Counts, CountStatus, Module
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.symbols import (
    NODE_ENDS,
    OPERATOR_BEGINS,
    demangle,
    find_twin,
    library_functions,
    operator_watches,
    read_symbols,
)
from edgekit.targets.emulated.twins import Functions, name_functions, read_library

# calls, addresses of data, literals: what a linker writes differs between the two libraries
SHARED = """
extern int elsewhere(int);
static int table[64];
const char *text(int which) { static const char *names[] = {"one", "two", "three"}; return names[which % 3]; }
static __attribute__((noipa)) int hidden_sum(const int *from, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) sum += from[i] * (i + 3);
    return sum;
}
static __attribute__((noipa)) double hidden_scale(double value, int rounds) {
    while (rounds-- > 0) value = value * 1.000123456789 + 7.25;
    return value;
}
int visible(int count) { table[count & 63] += elsewhere(count); return hidden_sum(table, count); }
double visible_scale(int count) { return hidden_scale(count, count); }
static __attribute__((noipa)) int copy_a(int x) { volatile int y = x; y += 5; y *= 3; y -= 2; y ^= 9; return y; }
static __attribute__((noipa)) int copy_b(int x) { volatile int y = x; y += 5; y *= 3; y -= 2; y ^= 9; return y; }
int visible_copies(int x) { return copy_a(x) + copy_b(x + 1); }
__asm__(".text\\n.p2align 4\\n.type asm_kernel,%function\\nasm_kernel:\\n"
        "mov x2, #0\\n1: ldr q0, [x0], #16\\n ldr q1, [x1], #16\\n fmul v0.4s, v0.4s, v1.4s\\n"
        "fadd v2.4s, v2.4s, v0.4s\\n"
        "add x2, x2, #4\\n cmp x2, #256\\n b.ne 1b\\n str q2, [x0]\\n ret\\n.size asm_kernel, .-asm_kernel\\n");
"""
PADDING = """
int elsewhere(int x) { return x * 17; }
static int more[5000];
int unrelated(int x) { more[x & 4095] = x; return more[(x + 1) & 4095] / (x | 1); }
"""


@pytest.fixture(scope="module")
def twins(compile_guest: GuestCompiler) -> tuple[Path, Path]:
    """A stripped library and its twin, with other code and data around the same functions."""
    flags = ("-shared", "-fPIC", "-O2", "-fno-ipa-icf")
    library = compile_guest("libmine.so", PADDING + SHARED, *flags)
    twin = compile_guest("libtwin.so", SHARED + PADDING + "\nint last(void) { return unrelated(3); }", *flags)
    stripped = library.with_name("libstripped.so")
    if not stripped.exists():
        shutil.copyfile(library, stripped)
        subprocess.run(["aarch64-linux-gnu-strip", "--strip-all", str(stripped)], check=True)
    return stripped, twin


def table(functions: Functions) -> dict[str, tuple[int, int]]:
    rows = zip(functions.names, functions.starts.tolist(), functions.ends.tolist(), strict=True)
    return {name: (start, end) for name, start, end in rows if name}


def test_hidden_functions_get_the_names_of_the_twin(twins: tuple[Path, Path]) -> None:
    stripped, twin = twins
    own, recovered = table(library_functions(stripped)), table(library_functions(stripped, twin=twin))
    truth = table(name_functions(read_library(stripped.with_name("libmine.so")), None))
    hidden = {"hidden_sum", "hidden_scale", "asm_kernel"}
    assert not hidden & set(own)
    assert hidden <= set(recovered)
    assert {name: recovered[name] for name in recovered} == {name: truth[name] for name in recovered}


def test_copies_of_one_code_get_a_name_only_by_their_place(twins: tuple[Path, Path]) -> None:
    stripped, twin = twins
    truth = table(name_functions(read_library(stripped.with_name("libmine.so")), None))
    recovered = table(library_functions(stripped, twin=twin))
    for name in {"copy_a", "copy_b"} & set(recovered):
        assert recovered[name] == truth[name]


def test_another_librarys_names_are_not_taken(twins: tuple[Path, Path], compile_guest: GuestCompiler) -> None:
    stripped, _ = twins
    other = compile_guest(
        "libother.so", "long other(long x) { long y = 1; while (x > 1) y *= x--; return y; }", "-shared", "-fPIC"
    )
    assert table(library_functions(stripped, twin=other)) == table(library_functions(stripped))


def test_tables_come_from_the_cache_the_second_time(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripped, twin = twins
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path))
    first = library_functions(stripped, twin=twin)
    kept = list((tmp_path / "emulated" / "symbols").glob("*.npz"))
    assert len(kept) == 1
    monkeypatch.setattr("edgekit.targets.emulated.symbols.read_library", pytest.fail)
    again = library_functions(stripped, twin=twin)
    assert again.names == first.names
    assert np.array_equal(again.starts, first.starts)


def test_offsets_outside_functions_have_none(twins: tuple[Path, Path]) -> None:
    functions = library_functions(twins[0])
    start, end = int(functions.starts[0]), int(functions.ends[0])
    asked = np.array([start, end - 4, 0, 1 << 40], dtype=np.uint64)
    assert functions.find(asked).tolist() == [0, 0, -1, -1]


def test_blocks_are_named_by_function_library_or_offset(twins: tuple[Path, Path]) -> None:
    stripped, _ = twins
    functions = library_functions(stripped)
    place = functions.names.index("visible")
    addresses = [0x10000 + int(functions.starts[place]) + 4, 0x10000 + 0x8, 0x999]
    counts = Counts(
        status=CountStatus.COMPLETE,
        modules=(Module(path=str(stripped), base=0x10000, end=0x40000),),
        addresses=np.array(addresses, dtype=np.uint64),
        words=tuple(np.zeros(size, dtype=np.uint32) for size in (3, 1, 1)),
        segments=np.zeros(3, dtype=np.uint32),
        blocks=np.arange(3, dtype=np.uint32),
        counts=np.array([5, 2, 3], dtype=np.uint64),
        boundaries=(),
        load_instructions=0,
        total_instructions=20,
        threads=1,
    )
    symbols = read_symbols(counts)
    named = [symbols.names[index] for index in symbols.block_functions.tolist()]
    assert named == ["visible", "libstripped.so+0x8", "code outside every file+0x999"]
    assert symbols.named_share(counts) == pytest.approx(15 / 20)
    assert dict(zip(symbols.names, symbols.instructions(counts).tolist(), strict=True))["visible"] == 15


@pytest.mark.parametrize("content", [b"", b"no ELF file at all", b"\x7fELF" + b"\0" * 60])
def test_a_file_that_is_no_library_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "libbroken.so"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"libbroken\.so: expected"):
        library_functions(path)


def test_a_library_of_this_machine_is_refused() -> None:
    python = Path("/proc/self/exe").resolve()
    with pytest.raises(ArtifactError, match="expected code for aarch64; received code for EM_"):
        read_library(python)


@pytest.mark.parametrize(
    ("mangled", "readable"),
    [
        ("xnn_run_operator", "xnn_run_operator"),
        ("_ZN6tflite8Subgraph10InvokeImplEv", "tflite::Subgraph::InvokeImpl"),
        ("_ZN3fooIiE3barEv", "foo<int>::bar"),
        ("_ZN12_GLOBAL__N_13runEi", "(anonymous namespace)::run"),
        ("_Znot a name", "_Znot a name"),
    ],
)
def test_names_are_demangled_without_arguments(mangled: str, readable: str) -> None:
    assert demangle(mangled) == readable


def test_a_runtime_without_the_watched_function_is_refused(twins: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copyfile(twins[0], tmp_path / "libLiteRt.so")
    with pytest.raises(UnsupportedError, match=r"xnn_run_operator_with_index was not found"):
        operator_watches("litert", [tmp_path])
    with pytest.raises(ArtifactError, match=r"expected libexecutorch\.so in"):
        operator_watches("executorch", [tmp_path])
    assert operator_watches("onnxruntime", [tmp_path]) == ()


def test_litert_functions_are_named_through_its_twin(emulated_toolchain: Toolchain) -> None:
    folders = emulated_toolchain.libraries.get("litert")
    if not folders:
        pytest.skip("the aarch64 library of LiteRT is not set up")
    library = folders[0] / "libLiteRt.so"
    functions = library_functions(library, twin=find_twin(library))
    known = np.array([bool(name) for name in functions.names])
    sizes = (functions.ends - functions.starts).astype(np.int64)
    assert sizes[known].sum() / sizes.sum() > 0.95
    kernels = [name for name in functions.names if name.startswith("xnn_") and "ukernel" in name]
    assert any("asm_aarch64_neonfma_cortex_a75" in name for name in kernels)
    assert [watch.name for watch in operator_watches("litert", folders)] == [OPERATOR_BEGINS, NODE_ENDS]
