"""The counting plugin's file: which blocks a guest executed, how often, in which segment of the run.

The bytes are described in ``targets/native/plugin/README.md``.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError

MAGIC: Final = b"EKCOUNT1"
_HEAD: Final = struct.Struct("<8s6I3Q")
_MODULE: Final = struct.Struct("<3Q")
_SEGMENT: Final = np.dtype([("kind", "<u4"), ("unused", "<u4"), ("value", "<u8")])
_RECORD: Final = np.dtype([("segment", "<u4"), ("block", "<u4"), ("count", "<u8")])


class CountStatus(enum.IntEnum):
    """How the counted region ended."""

    COMPLETE = 0
    LIMIT = 1
    """The instruction limit stopped the guest."""
    TRACE_LOST = 2
    """The reader of the trace went away."""
    UNFINISHED = 3
    """The guest ended inside the counted region."""
    NO_REGION = 4
    """The guest ended and never began a counted region."""


class Boundary(enum.IntEnum):
    """What began a segment."""

    BEGIN = 0
    """The counted region itself; the value is 1 where a marker began it, 0 where it is the whole program."""
    WATCH = 1
    """A watched function was called; the value is its place among the plugin's ``watch`` arguments."""
    MARKER = 2
    """The guest's marker SEGMENT; the value is the guest's number."""
    SYSCALL = 3
    """The system call named by ``segment_syscall``; the value is its number."""


@dataclass(frozen=True, slots=True)
class Module:
    """A file that was mapped into the guest and executed.

    Attributes:
        path: On this machine.
        base: Address of its first byte in the guest.
        end: Address after its last mapped byte.
    """

    path: str
    base: int
    end: int

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, eq=False)
class Counts:
    """What the counted region of one run executed. B blocks, R records, S segments.

    A block is a straight run of instructions; the same code reached by a jump into its middle is a block of its own, so
    blocks may overlap, but every executed instruction is counted exactly once.

    Attributes:
        status: How the region ended; only `CountStatus.COMPLETE` counts are whole.
        modules: Files that hold at least one block.
        addresses: ``u64[B]``, of each block's first instruction.
        words: The instruction words of each block.
        segments: ``u32[R]``, the segment of each record.
        blocks: ``u32[R]``, the block of each record.
        counts: ``u64[R]``, how often the block was executed in the segment.
        boundaries: ``(kind, value)[S]``, what began each segment.
        load_instructions: Between the markers LOAD_BEGIN and LOAD_END; 0 without them.
        total_instructions: Of the guest's process, from its start until the file was written.
        threads: Threads that executed anything in the region; only the one that set the marker is counted.
        exact: False where a thread was created inside the region: it may have been counted too, and counts lost.
    """

    status: CountStatus
    modules: tuple[Module, ...]
    addresses: NDArray[np.uint64]
    words: tuple[NDArray[np.uint32], ...]
    segments: NDArray[np.uint32]
    blocks: NDArray[np.uint32]
    counts: NDArray[np.uint64]
    boundaries: tuple[tuple[Boundary, int], ...]
    load_instructions: int
    total_instructions: int
    threads: int
    exact: bool = True

    @property
    def num_segments(self) -> int:
        """Segments in order of time; the first starts with the region."""
        return len(self.boundaries)

    @cached_property
    def lengths(self) -> NDArray[np.uint64]:
        """``u64[B]``: instructions in each block."""
        return np.array([len(words) for words in self.words], dtype=np.uint64)

    @cached_property
    def block_counts(self) -> NDArray[np.uint64]:
        """``u64[B]``: executions of each block in all segments together."""
        totals = np.zeros(len(self.addresses), dtype=np.uint64)
        np.add.at(totals, self.blocks, self.counts)
        return totals

    @property
    def steady_instructions(self) -> int:
        """Instructions executed in the region."""
        return int((self.block_counts * self.lengths).sum())

    @cached_property
    def segment_instructions(self) -> NDArray[np.uint64]:
        """``u64[S]``: instructions executed in each segment."""
        totals = np.zeros(self.num_segments, dtype=np.uint64)
        np.add.at(totals, self.segments, self.counts * self.lengths[self.blocks])
        return totals

    @cached_property
    def block_modules(self) -> NDArray[np.int64]:
        """``i64[B]``: index of each block's module; -1 for code outside every file."""
        places = np.full(len(self.addresses), -1, dtype=np.int64)
        for index, module in enumerate(self.modules):
            places[(self.addresses >= module.base) & (self.addresses < module.end)] = index
        return places

    def instructions_by_module(self) -> dict[str, int]:
        """Return the region's instructions by file name; ``""`` holds code outside every file."""
        executed = self.block_counts * self.lengths
        totals: dict[str, int] = defaultdict(int)
        for index, instructions in zip(self.block_modules.tolist(), executed.tolist(), strict=True):
            totals[self.modules[index].name if index >= 0 else ""] += instructions
        return dict(totals)

    def fingerprint(self, *libraries: str) -> str:
        """Return a digest of what was executed inside the named libraries, wherever they were loaded.

        Two runs have one fingerprint exactly when each segment executed the same instructions of these libraries
        equally often. Addresses, folders and the order of translation do not matter.

        Args:
            libraries: File names; none: every module.

        Example:
            >>> read_counts(first).fingerprint("libLiteRt.so") == read_counts(again).fingerprint("libLiteRt.so")
            True
        """
        wanted = {i: module for i, module in enumerate(self.modules) if not libraries or module.name in libraries}
        rows = []
        for segment, block, count in zip(self.segments, self.blocks, self.counts, strict=True):
            module = wanted.get(int(self.block_modules[block]))
            if module is not None:
                offset = int(self.addresses[block]) - module.base
                rows.append((int(segment), module.name, offset, self.words[block].tobytes(), int(count)))
        digest = hashlib.sha256()
        for segment_, name, offset, words, count_ in sorted(rows):
            digest.update(f"{segment_} {name} {offset} {count_} {len(words)} ".encode() + words)
        return digest.hexdigest()


def read_counts(path: Path) -> Counts:
    """Read the plugin's count file.

    Raises:
        ArtifactError: The file is missing, truncated, or not a count file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: the count file cannot be read: {error}") from error
    try:
        return _parse(content)
    except (struct.error, ValueError) as error:
        raise ArtifactError(
            f"{path}: expected a whole count file of the counting plugin (it begins with {MAGIC.decode()}); "
            f"received {len(content)} bytes that are not: {error}. Run the guest again."
        ) from error


class _Reader:
    """A cursor over the file's bytes; every read past the end is a ValueError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        piece = self._content[self._at : self._at + size]
        if len(piece) != size:
            raise ValueError(f"{size} bytes expected at {self._at}, {len(piece)} are there")
        self._at += size
        return piece

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the next structure."""
        return layout.unpack(self.take(layout.size))

    def array(self, dtype: Any, count: int) -> NDArray[Any]:
        """Return the next ``count`` items."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def at_end(self) -> bool:
        """Whether everything was read."""
        return self._at == len(self._content)


def _parse(content: bytes) -> Counts:
    reader = _Reader(content)
    magic, status, threads, num_modules, num_blocks, num_segments, exact, num_records, total, load = reader.unpack(
        _HEAD
    )
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}")
    modules = tuple(_parse_module(reader) for _ in range(num_modules))
    addresses = reader.array("<u8", num_blocks)
    lengths = reader.array("<u4", num_blocks)
    all_words = reader.array("<u4", int(lengths.sum(dtype=np.uint64)))
    segments = reader.array(_SEGMENT, num_segments)
    records = reader.array(_RECORD, num_records)
    if not reader.at_end():
        raise ValueError("there is more after its end")
    _check_ranges(records, num_blocks, num_segments)
    ends = np.cumsum(lengths, dtype=np.uint64)
    return Counts(
        status=CountStatus(status),
        modules=modules,
        addresses=addresses,
        words=tuple(all_words[int(end) - int(size) : int(end)] for end, size in zip(ends, lengths, strict=True)),
        segments=records["segment"],
        blocks=records["block"],
        counts=records["count"],
        boundaries=tuple((Boundary(row["kind"]), int(row["value"])) for row in segments),
        load_instructions=load,
        total_instructions=total,
        threads=threads,
        exact=bool(exact),
    )


def _parse_module(reader: _Reader) -> Module:
    base, end, length = reader.unpack(_MODULE)
    return Module(path=reader.take(length).decode("utf-8", "surrogateescape"), base=base, end=end)


def _check_ranges(records: NDArray[Any], num_blocks: int, num_segments: int) -> None:
    if len(records) and (records["block"].max() >= num_blocks or records["segment"].max() >= num_segments):
        raise ValueError("a record names a block or a segment that is not there")
