"""The processor that a guest sees, asked by a guest."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgekit.errors import OutputError
from edgekit.targets.devices import core_names
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.persona import Persona, main_id, make_persona, persona_files
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.tools import find_cross_compiler

PROGRAM = """
#include <stdio.h>
#include <sys/auxv.h>
static void show(const char *path) {
    char text[256];
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(text, sizeof text, file) != NULL) fputs(text, stdout);
    if (file != NULL) fclose(file);
}
int main(void) {
    unsigned long id;
    __asm__("mrs %0, midr_el1" : "=r"(id));
    printf("midr %lx\\ndot %d\\n", id, (int)(getauxval(AT_HWCAP) >> 20 & 1));
    show("/proc/cpuinfo");
    show("/sys/devices/system/cpu/possible");
    show("/sys/devices/system/cpu/cpu3/cache/index0/size");
    return 0;
}
"""


@dataclass(frozen=True)
class Core:
    """What a persona needs of a core table."""

    name: str = "cortex-a75"
    implementer: int = 0x51
    part: int = 0x802
    features: tuple[str, ...] = ("fp", "asimd", "asimddp")
    l1d_kib: int = 64
    l1i_kib: int = 64
    l2_kib: int = 256
    l3_kib: int | None = 1024
    clock_mhz: float = 2000.0
    qemu_cpu: str = "cortex-a76"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    sysroot = tmp_path / "sysroot"
    (sysroot / "lib").mkdir(parents=True)
    return Toolchain(
        qemu=tmp_path, qemu_version="7.2", sysroot=sysroot, plugin=tmp_path, coresim=tmp_path, runners={}, libraries={},
        versions={},
    )  # fmt: skip


def make(core: Core, tools: Toolchain) -> Persona:
    return make_persona(core, tools)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def asking(emulated_toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest program that prints what it sees."""
    compiler = find_cross_compiler()
    if compiler.path is None:
        pytest.skip(compiler.problem)
    folder = tmp_path_factory.mktemp("ask")
    (folder / "ask.c").write_text(PROGRAM, encoding="ascii")
    subprocess.run([compiler.path, "-x", "c", folder / "ask.c", "-o", folder / "ask"], check=True, timeout=120)
    return folder / "ask"


def answer(asking: Path, persona: Persona, tools: Toolchain) -> str:
    command = [tools.qemu, "-L", persona.root, "-cpu", persona.qemu_cpu, asking]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_guest_sees_the_core_and_its_caches(
    emulated_toolchain: Toolchain, asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    said = answer(asking, make(Core(), emulated_toolchain), emulated_toolchain)
    assert said.startswith("midr 511f8020\ndot 1\n")
    assert said.count("CPU part\t: 0x802\n") == 4
    assert said.count("CPU implementer\t: 0x51\n") == 4
    assert said.endswith("\n0-3\n64K\n")


@pytest.mark.parametrize("name", core_names())
def test_guest_sees_the_part_and_dot_products_of_every_core_table(
    emulated_toolchain: Toolchain, asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Kernels are chosen by both: by what the table says, and by what the emulated processor has."""
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    table = load_core(name)
    said = answer(asking, make_persona(table, emulated_toolchain), emulated_toolchain)
    assert said.count(f"CPU part\t: 0x{table.part:03x}\n") == 4
    assert f"midr {main_id(table):x}\n" in said
    assert f"\ndot {int('asimddp' in table.features)}\n" in said


def test_main_id_register_is_arms() -> None:
    assert main_id(Core(implementer=0x41, part=0xD08)) == 0x411FD080  # type: ignore[arg-type]


def test_files_have_a_third_level_only_when_the_core_has_one() -> None:
    level = "sys/devices/system/cpu/cpu0/cache/index3/level"
    shared = "sys/devices/system/cpu/cpu0/cache/index2/shared_cpu_list"
    with_l3, without = persona_files(Core()), persona_files(Core(l3_kib=None))  # type: ignore[arg-type]
    assert with_l3[level] == "3\n"
    assert with_l3[shared] == "0\n"
    assert level not in without
    assert without[shared] == "0-3\n"


def test_persona_is_written_once_and_keyed_by_its_files(tools: Toolchain) -> None:
    first = make(Core(), tools)
    stamp = (first.root / "proc" / "cpuinfo").stat().st_mtime_ns
    again = make(Core(), tools)
    assert again == first
    assert (first.root / "proc" / "cpuinfo").stat().st_mtime_ns == stamp
    assert [path.name for path in first.root.parent.iterdir()] == [first.root.name]


@pytest.mark.parametrize("changed", [{"part": 0x803}, {"l2_kib": 512}, {"qemu_cpu": "max"}, {"clock_mhz": 2100.0}])
def test_key_differs_when_the_guest_could_see_it(tools: Toolchain, changed: dict[str, object]) -> None:
    assert make(replace(Core(), **changed), tools).key != make(Core(), tools).key  # type: ignore[arg-type]


def test_key_is_the_same_when_only_the_name_or_the_sysroot_differs(tools: Toolchain, tmp_path: Path) -> None:
    first = make(Core(), tools)
    (tmp_path / "other" / "lib").mkdir(parents=True)
    second = make(Core(name="kryo-360"), replace(tools, sysroot=tmp_path / "other"))
    assert second.key == first.key
    assert second.root != first.root
    assert (second.root / "lib").resolve() == tmp_path / "other" / "lib"


def test_error_is_clear_when_the_cache_folder_cannot_be_written(
    tools: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="EDGEKIT_CACHE_DIR"):
        make(Core(), tools)
