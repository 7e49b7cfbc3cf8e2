"""Give the functions of a stripped library the names that they have in a twin: a library built from the same sources.

Two copies of a function differ only where the linker wrote distances to other code and data. Those bits are masked;
what is left must be the same, and must be the only one of its kind in both libraries. A function whose code has copies
(small ones often do) is named by its place: it follows, or is followed by, a function that is known in both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError, MissingToolError

_EH_POINTERS: Final = b"\x01\x1b\x03\x3b"
"""Version 1; frame pointer and table relative to their own place, four bytes: what every aarch64 linker writes."""
_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_FUNCTION: Final = 2
_MIN_WORDS: Final = 8
"""Shorter code says too little to be found by a search through bytes."""


@dataclass(frozen=True, eq=False, slots=True)
class Functions:
    """The functions of a library. N functions in order of address; none overlap.

    Attributes:
        starts: ``u64[N]``, offset of the first instruction from the address where the library is loaded.
        ends: ``u64[N]``, after the last instruction.
        names: As the linker knows them; empty where the name is not known.
    """

    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    names: tuple[str, ...]

    def find(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for each offset the index of the function that holds it; -1: none does."""
        if not len(self.starts):
            return np.full(len(offsets), -1, dtype=np.int64)
        places = np.searchsorted(self.starts, offsets, side="right").astype(np.int64) - 1
        inside = (places >= 0) & (offsets < self.ends[np.maximum(places, 0)])
        return np.where(inside, places, -1)


@dataclass(frozen=True, eq=False, slots=True)
class Library:
    """The code of an ELF file.

    Attributes:
        words: ``u32[W]``, its executable segment.
        start: Offset of the first word from the address where the library is loaded.
        symbols: ``(start, end, name)`` of each named function, in order of address; one name an address.
        frames: ``(start, end)`` of each function that has unwind information, in order of address.
    """

    words: NDArray[np.uint32]
    start: int
    symbols: tuple[tuple[int, int, str], ...]
    frames: tuple[tuple[int, int], ...]


def read_library(path: Path) -> Library:
    """Read an aarch64 shared library or program.

    Raises:
        MissingToolError: pyelftools is not installed.
        ArtifactError: The file is no aarch64 ELF file, or is damaged.
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise MissingToolError(
            "names of functions are read with the package pyelftools, which is not installed; "
            "install it with: pip install 'edgekit[emulated]'"
        ) from error
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            if elf["e_machine"] != "EM_AARCH64":
                raise ArtifactError(f"{path}: expected code for aarch64; received code for {elf['e_machine']}")
            return _read_elf(elf)
    except (ELFError, OSError, ValueError, IndexError) as error:
        raise ArtifactError(f"{path}: expected an ELF file of aarch64 code: {error}") from error


def name_functions(library: Library, twin: Library | None) -> Functions:
    """Return a library's functions, with names of its own symbols first, then of the twin's."""
    ranges = {start: (end, name) for start, end, name in library.symbols}
    for start, end in library.frames:
        ranges.setdefault(start, (end, ""))
    if twin is not None:
        _add_twin_names(ranges, library, twin)
    return _without_overlap(ranges)


def _add_twin_names(ranges: dict[int, tuple[int, str]], library: Library, twin: Library) -> None:
    code, known = _Masked(library), _Masked(twin)
    names = {start: name for start, _, name in twin.symbols}
    named = [(start, end, names[start]) for start, end in twin.frames if start in names]
    for start, name in _match_frames(code, library.frames, known, named).items():
        end, own = ranges[start]
        ranges[start] = (end, own or name)
    framed = {start for start, _ in twin.frames}
    assembly = [(start, end, name) for start, end, name in twin.symbols if start not in framed]
    for start, end, name in _find_assembly(code, _gaps(ranges, library), known, assembly):
        ranges.setdefault(start, (end, name))


class _Masked:
    """Code with everything that a linker may have written masked out."""

    def __init__(self, library: Library) -> None:
        self.start = library.start
        functions = [*library.frames, *((start, end) for start, end, _ in library.symbols)]
        self._words = _mask(library.words, _bases_by_word(library, functions))

    def code(self, start: int, end: int) -> bytes:
        """Return the masked code between two offsets."""
        return self._words[(start - self.start) // 4 : (end - self.start) // 4].tobytes()


def _bases_by_word(library: Library, functions: Iterable[tuple[int, int]]) -> NDArray[np.uint32]:
    """``u32[W]``: for each word, a bit for each register that some ADRP of the same function writes."""
    is_page = (library.words & np.uint32(0x9F000000)) == np.uint32(0x90000000)
    written = np.where(is_page, np.uint32(1) << (library.words & np.uint32(31)), np.uint32(0))
    cuts = {start for start, _ in functions} | {end for _, end in functions}
    places = sorted({0, *((cut - library.start) // 4 for cut in cuts)})
    edges = np.array([place for place in places if place < len(written)], dtype=np.int64)
    sizes = np.diff(np.append(edges, len(written)))
    return np.repeat(np.bitwise_or.reduceat(written, edges), sizes).astype(np.uint32)


def _mask(words: NDArray[np.uint32], bases: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Clear the distances of calls, jumps, page addresses, literal loads, and the low bits that go with a page."""
    kept = words.copy()

    def is_kind(mask: int, value: int) -> NDArray[np.bool_]:
        return np.asarray((words & np.uint32(mask)) == np.uint32(value))

    kept[is_kind(0x7C000000, 0x14000000)] &= np.uint32(0xFC000000)  # b, bl
    kept[is_kind(0x1F000000, 0x10000000)] &= np.uint32(0x9F00001F)  # adr, adrp
    kept[is_kind(0x3B000000, 0x18000000)] &= np.uint32(0xFF00001F)  # ldr (literal)
    uses_page = (bases >> ((words >> np.uint32(5)) & np.uint32(31))) & np.uint32(1) != 0
    takes_low_bits = is_kind(0xFFC00000, 0x91000000) | is_kind(0x3B000000, 0x39000000)  # add, ldr/str with an immediate
    kept[uses_page & takes_low_bits] &= np.uint32(0xFFC003FF)
    return kept


def _match_frames(
    code: _Masked, frames: Sequence[tuple[int, int]], known: _Masked, named: Sequence[tuple[int, int, str]]
) -> dict[int, str]:
    here = [code.code(start, end) for start, end in frames]
    there = [known.code(start, end) for start, end, _ in named]
    places_here, places_there = _places(here), _places(there)
    pairs = {
        places[0]: places_there[content][0]
        for content, places in places_here.items()
        if len(places) == 1 and len(places_there.get(content, ())) == 1
    }
    for step in (1, -1):
        _spread(pairs, here, there, step)
    return {frames[mine][0]: named[other][2] for mine, other in pairs.items()}


def _places(contents: Sequence[bytes]) -> dict[bytes, list[int]]:
    places: dict[bytes, list[int]] = defaultdict(list)
    for place, content in enumerate(contents):
        places[content].append(place)
    return places


def _spread(pairs: dict[int, int], here: Sequence[bytes], there: Sequence[bytes], step: int) -> None:
    """Name the neighbours of what is known while their code is the same too, from one end to the other."""
    taken = set(pairs.values())
    for mine in range(len(here)) if step > 0 else range(len(here) - 1, -1, -1):
        before = pairs.get(mine - step)
        if mine in pairs or before is None:
            continue
        other = before + step
        if 0 <= other < len(there) and other not in taken and here[mine] == there[other]:
            pairs[mine] = other
            taken.add(other)


def _gaps(ranges: dict[int, tuple[int, str]], library: Library) -> Iterator[tuple[int, int]]:
    """Yield the code between functions: assembly without unwind information, and padding."""
    at = library.start
    for start, (end, _) in sorted(ranges.items()):
        if start - at >= 4 * _MIN_WORDS:
            yield at, start
        at = max(at, end)
    last = library.start + 4 * len(library.words)
    if last - at >= 4 * _MIN_WORDS:
        yield at, last


def _find_assembly(
    code: _Masked,
    gaps: Iterable[tuple[int, int]],
    known: _Masked,
    assembly: Iterable[tuple[int, int, str]],
) -> Iterator[tuple[int, int, str]]:
    """Search the gaps for each function of the twin that has no unwind information; yield those found once."""
    # a function of the twin seldom crosses two gaps, so each gap ends in a word that no code holds
    pieces = [(start, code.code(start, end)) for start, end in gaps]
    for start, end, name in assembly:
        wanted = known.code(start, end)
        if len(wanted) < 4 * _MIN_WORDS:
            continue
        found = [at + place for at, content in pieces for place in _aligned(content, wanted)]
        if len(found) == 1:
            yield found[0], found[0] + len(wanted), name


def _aligned(content: bytes, wanted: bytes) -> Iterator[int]:
    place = content.find(wanted)
    while place >= 0:
        if place % 4 == 0:
            yield place
        place = content.find(wanted, place + 1)


def _without_overlap(ranges: dict[int, tuple[int, str]]) -> Functions:
    rows = sorted((start, end, name) for start, (end, name) in ranges.items())
    starts = np.array([row[0] for row in rows], dtype=np.uint64)
    ends = np.array([row[1] for row in rows], dtype=np.uint64)
    if len(rows) > 1:
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
    return Functions(starts=starts, ends=ends, names=tuple(row[2] for row in rows))


def _read_elf(elf: Any) -> Library:
    loaded = [one for one in elf.iter_segments() if one["p_type"] == "PT_LOAD"]
    base = min((one["p_vaddr"] & ~0xFFFF for one in loaded), default=0)  # of a program; a library's is 0
    executable = [one for one in loaded if one["p_flags"] & 1]
    if not executable:
        raise ValueError("it holds no code")
    largest = max(executable, key=lambda one: one["p_filesz"])
    begin = (largest["p_vaddr"] + 3) & ~3
    content = largest.data()[begin - largest["p_vaddr"] :]
    words = np.frombuffer(content[: len(content) // 4 * 4], dtype="<u4")
    last = begin + 4 * len(words)
    return Library(
        words=words,
        start=begin - base,
        symbols=tuple((s - base, e - base, name) for s, e, name in _read_symbols(elf) if begin <= s < e <= last),
        frames=tuple((s - base, e - base) for s, e in _read_frames(elf) if begin <= s < e <= last),
    )


def _read_symbols(elf: Any) -> list[tuple[int, int, str]]:
    """Read the tables at once: an object for each of a hundred thousand symbols would take ten seconds."""
    best: dict[int, tuple[int, str]] = {}
    for section_name in (".symtab", ".dynsym"):
        section = elf.get_section_by_name(section_name)
        if section is None:
            continue
        table = np.frombuffer(section.data(), dtype=_SYMBOL)
        strings = elf.get_section(section["sh_link"]).data()
        is_function = ((table["info"] & 15) == _FUNCTION) & (table["value"] != 0) & (table["size"] != 0)
        for row in table[is_function]:
            start, size, at = int(row["value"]), int(row["size"]), int(row["name"])
            name = strings[at : strings.index(b"\0", at)].decode("utf-8", "replace")
            known = best.get(start)
            if known is None or (len(name), name) < (len(known[1]), known[1]):  # aliases: the shortest name
                best[start] = (size, name)
    return [(start, start + size, name) for start, (size, name) in sorted(best.items())]


def _read_frames(elf: Any) -> list[tuple[int, int]]:
    """Read the functions from the sorted table of ``.eh_frame_hdr`` and the lengths in the entries that it names."""
    header, frames = elf.get_section_by_name(".eh_frame_hdr"), elf.get_section_by_name(".eh_frame")
    if header is None or frames is None:
        return []
    table, content = header.data(), frames.data()
    if table[:4] != _EH_POINTERS:
        return []
    count = int.from_bytes(table[8:12], "little")
    entries = np.frombuffer(table, dtype="<i4", count=2 * count, offset=12).reshape(count, 2).astype(np.int64)
    starts = entries[:, 0] + header["sh_addr"]
    places = entries[:, 1] + header["sh_addr"] - frames["sh_addr"]
    sizes = [int.from_bytes(content[place + 12 : place + 16], "little") for place in places.tolist()]
    return [(start, start + size) for start, size in sorted(zip(starts.tolist(), sizes, strict=True)) if size]
