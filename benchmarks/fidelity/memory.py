"""The memory side alone: loops of tinymembench through the core simulator, beside what boards measured.

No guest runs: the streams are written here, block by block, as the counting plugin would write them.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.fidelity.predictions import device
from benchmarks.fidelity.rows import FOLDER
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.coresim import PlacedCore, core_arguments, run_coresim
from edgekit.targets.emulated.decode import write_decode_table
from edgekit.targets.emulated.place import place_of

LINE = 64
BUFFER_BYTES = {"copy": 8 << 20, "fill": 8 << 20, "latency": 16 << 20}
SOURCE, TARGET = 0x1000_0000, 0x2000_7000  # not a multiple of a cache apart, as buffers of an allocator are not
CODE = 0x40_0000
SECONDS = 300.0
BLOCK_DEFINED, STREAM_ENDS = 0xFFFFFFFE, 0xFFFFFFFD


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that goes through a line of memory a turn.

    Attributes:
        words: Its instructions; the sources stand beside them.
        loads: For each load of a turn: the place of its instruction, and its offset in the line.
        stores: The same for stores.
    """

    words: tuple[int, ...]
    loads: tuple[tuple[int, int], ...] = ()
    stores: tuple[tuple[int, int], ...] = ()


PAIRS = ((0, 0), (0, 16), (1, 32), (1, 48))
LOOPS = {
    "copy": Loop(
        (
            0xACC10420,  # ldp q0, q1, [x1], #32
            0xACC10C22,  # ldp q2, q3, [x1], #32
            0xAC810400,  # stp q0, q1, [x0], #32
            0xAC810C02,  # stp q2, q3, [x0], #32
            0xF1010042,  # subs x2, x2, #64
            0x54FFFF61,  # b.ne, to the first
        ),
        loads=PAIRS,
        stores=tuple((place + 2, offset) for place, offset in PAIRS),
    ),
    "fill": Loop((0xAC810400, 0xAC810C02, 0xF1010042, 0x54FFFFA1), stores=PAIRS),
    "latency": Loop(
        (
            0xF9400021,  # ldr x1, [x1]
            0xF1000442,  # subs x2, x2, #1
            0x54FFFFC1,  # b.ne, to the first
        ),
        loads=((0, 0),),
    ),
}


def measure(coresim: Path) -> dict[str, Any]:
    """Return each published figure with the simulated one."""
    table: dict[str, Any] = yaml.safe_load((FOLDER / "published" / "memory.yaml").read_text(encoding="utf-8"))
    cores = [_placed(row["target"], row["cluster"]) for row in table["rows"]]
    with tempfile.TemporaryDirectory() as folder:
        cycles = {kind: simulate(kind, cores, coresim, Path(folder)) for kind in LOOPS}
    rows = [
        {**row, "core": core.core.name, "simulated": _figures(core, {kind: cycles[kind][index] for kind in LOOPS})}
        for index, (row, core) in enumerate(zip(table["rows"], cores, strict=True))
    ]
    return {"rows": [{**row, "errors": _errors(row)} for row in rows]}


def simulate(kind: str, cores: Sequence[PlacedCore], coresim: Path, folder: Path) -> list[float]:
    """Return the cycles that one turn of a loop takes on each core."""
    words = np.array(LOOPS[kind].words, dtype=np.uint32)
    write_decode_table(words, folder / "words.decode")
    turns = BUFFER_BYTES[kind] // LINE
    (folder / "stream").write_bytes(_stream(kind, words, turns))
    places = {"--decode": "words.decode", "--input": "stream", "--output": "result.json"}
    files = [text for option, name in places.items() for text in (option, str(folder / name))]
    run_coresim(coresim, ["trace", *files, *core_arguments(cores, folder)], seconds=SECONDS)
    found = json.loads((folder / "result.json").read_text(encoding="ascii"))
    return [sum(segment[0] for segment in core["segments"]) / turns for core in found["cores"]]


def _placed(target: str, cluster: str) -> PlacedCore:
    phone = device(target)
    (chosen,) = (each for each in phone.clusters if each.name == cluster)
    return PlacedCore(load_core(chosen.core), place_of(phone, chosen))


def _stream(kind: str, words: NDArray[np.uint32], turns: int) -> bytes:
    """Return the trace of all turns: in order of address, for the latency each line once in a random order."""
    loop = LOOPS[kind]
    lines = np.arange(turns, dtype=np.uint64)
    if kind == "latency":
        lines = np.random.default_rng(0).permutation(lines)
    accesses = [(SOURCE, place, offset, 0) for place, offset in loop.loads]
    accesses += [(TARGET, place, offset, 1) for place, offset in loop.stores]
    records = np.zeros(turns, dtype=[("block", "<u4"), ("count", "<u4"), ("accesses", "<u8", (len(accesses),))])
    records["count"] = len(accesses)
    for column, (base, place, offset, is_store) in enumerate(accesses):
        address = lines * np.uint64(LINE) + np.uint64(base + offset)
        records["accesses"][:, column] = address << np.uint64(12) | np.uint64(place << 1 | is_store)
    head = struct.pack("<IIQI", BLOCK_DEFINED, 0, CODE, len(words))
    return head + words.tobytes() + records.tobytes() + struct.pack("<I", STREAM_ENDS)


def _figures(core: PlacedCore, cycles: dict[str, float]) -> dict[str, float]:
    """Return bandwidths in 10^9 bytes a second, and the latency in ns over a hit of L1."""
    per_ns = core.place.clock_mhz / 1000
    hit = core.core.classes["load_x"].latency
    return {
        "copy": round(LINE * per_ns / cycles["copy"], 2),
        "fill": round(LINE * per_ns / cycles["fill"], 2),
        "latency": round((cycles["latency"] - hit) / per_ns, 1),
    }


def _errors(row: dict[str, Any]) -> dict[str, float]:
    return {kind: round(row["simulated"][kind] / row[kind] - 1, 3) for kind in LOOPS}
