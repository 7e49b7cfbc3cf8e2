"""A64 code for the tests of decoding and of the latency models: instruction words, core places, traces, coresim."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.targets.emulated.build import compile_build, coresim_build
from edgekit.targets.emulated.cores import core_text, load_core
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.decode import write_decode_table
from edgekit.targets.emulated.place import CorePlace
from edgekit.targets.emulated.tools import find_host_compiler

# Written by GNU as 2.40; the comment of each is its source.
FMLA = tuple(0x4E3FCFC0 + i for i in range(8))  # fmla v<i>.4s, v30.4s, v31.4s
FMLA_OF_ITSELF = 0x4E3FCC00  # fmla v0.4s, v0.4s, v31.4s
FMLA_OF_LOADED = 0x4E3FCE00  # fmla v0.4s, v16.4s, v31.4s
FADD_OF_ITSELF = 0x4E3FD400  # fadd v0.4s, v0.4s, v31.4s
FMUL = 0x6E3FDFC0  # fmul v0.4s, v30.4s, v31.4s
SMULL = tuple(0x0E24C008 + i for i in range(4))  # smull v<8 + i>.8h, v0.8b, v4.8b
SADALP = tuple(0x4E606B10 + i for i in range(4))  # sadalp v<16 + i>.4s, v24.8h
SDOT = 0x4E9F97C0  # sdot v0.4s, v30.16b, v31.16b
LOAD_Q_STEP = 0x3CC10430  # ldr q16, [x1], #16
LOAD_Q = 0x3DC00030  # ldr q16, [x1]
LOAD_D = 0xFD400030  # ldr d16, [x1]
LOAD_X = 0xF9400022  # ldr x2, [x1]
STORE_Q_STEP = 0x3C810420  # str q0, [x1], #16
ADD_X3, ADD_X4 = 0x91000463, 0x91000484  # add x3, x3, #1
MUL = 0x9B077CC5  # mul x5, x6, x7
PREFETCH_512 = 0xF9810020  # prfm pldl1keep, [x1, #512]
COUNT_DOWN, BRANCH_BACK = 0xF1000400, 0x54000001  # subs x0, x0, #1; b.ne

PLACE = CorePlace(
    clock_mhz=2000, l1d_kib=32, l2_kib=256, l3_kib=1024, memory_bandwidth_gb_s=8.0, memory_latency_ns=120.0
)


def placed(name: str, place: CorePlace = PLACE) -> PlacedCore:
    """A core of the packaged tables at a place."""
    return PlacedCore(load_core(name), place)


@cache
def coresim_program() -> Path:
    """coresim, compiled; the test is skipped where there is no C compiler."""
    compiler = find_host_compiler()
    if not compiler.command:
        pytest.skip(compiler.problem)
    return compile_build(coresim_build(), compiler.command)


def block_cycles(code: Sequence[int], core: str, folder: Path) -> float:
    """Steady-state cycles of a block that is looped on itself."""
    words = np.array(code, dtype=np.uint32)
    write_decode_table(words, folder / "words")
    (folder / "blocks").write_bytes(struct.pack("<II", 1, len(words)) + words.tobytes())
    (folder / "core").write_text(core_text(load_core(core), PLACE))
    files = ["--decode", "words", "--core", "core", "--blocks", "blocks", "--output", "cycles"]
    subprocess.run([coresim_program(), "blocks", *files], cwd=folder, check=True, timeout=60)
    return float((folder / "cycles").read_text())


def define(block: int, address: int, code: Sequence[int]) -> bytes:
    """The record that introduces a block."""
    return struct.pack(f"<IIQI{len(code)}I", 0xFFFFFFFE, block, address, len(code), *code)


def execute(block: int, accesses: Iterable[tuple[int, int, bool]] = ()) -> bytes:
    """The record of one execution; an access is (address, index of its instruction, whether it stores)."""
    packed = [address << 12 | index << 1 | store for address, index, store in accesses]
    return struct.pack(f"<II{len(packed)}Q", block, len(packed), *packed)


def segment(index: int) -> bytes:
    """The record that begins a segment."""
    return struct.pack("<II", 0xFFFFFFFF, index)


END = struct.pack("<I", 0xFFFFFFFD)


def run_trace(stream: bytes, code: Sequence[int], cores: Sequence[PlacedCore], folder: Path) -> dict[str, Any]:
    """coresim's whole result for a trace of the given code."""
    write_decode_table(np.array(code, dtype=np.uint32), folder / "words")
    arguments = ["trace", "--decode", "words", "--input", "-", "--output", "result"]
    for index, core in enumerate(cores):
        (folder / f"core{index}").write_text(core_text(core.core, core.place))
        arguments += ["--core", f"core{index}"]
    subprocess.run([coresim_program(), *arguments], cwd=folder, input=stream, check=True, timeout=120)
    document: dict[str, Any] = json.loads((folder / "result").read_text())
    return document


def assembler() -> str | None:
    """GNU as for aarch64, where it is installed."""
    return shutil.which("aarch64-linux-gnu-as")


def assemble(lines: Sequence[str], folder: Path) -> list[int]:
    """The words of assembly lines."""
    source = ".arch armv8.6-a+fp16+dotprod+i8mm+bf16+sve+crypto\n" + "\n".join(lines) + "\n"
    (folder / "code.s").write_text(source)
    tool = str(assembler())
    subprocess.run([tool, "code.s", "-o", "code.o"], cwd=folder, check=True)
    copy = tool.removesuffix("as") + "objcopy"
    subprocess.run([copy, "-O", "binary", "-j", ".text", "code.o", "code.bin"], cwd=folder, check=True)
    words: list[int] = np.fromfile(folder / "code.bin", dtype="<u4").tolist()
    return words
