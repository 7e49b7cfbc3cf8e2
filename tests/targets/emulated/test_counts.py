from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import ArtifactError
from edgekit.targets.emulated.counts import Boundary, CountStatus, Module, read_counts

Block = tuple[int, list[int]]
Record = tuple[int, int, int]
WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6)
BLOCKS = st.lists(st.tuples(st.integers(0, 2**48), WORDS), min_size=1, max_size=8)


def encode(
    blocks: list[Block],
    records: list[Record],
    boundaries: list[tuple[int, int]],
    modules: tuple[Module, ...] = (),
    status: int = 0,
    threads: int = 1,
) -> bytes:
    head = struct.pack("<8s6I", b"EKCOUNT1", status, threads, len(modules), len(blocks), len(boundaries), 4)
    parts = [head, struct.pack("<3Q", len(records), 1000, 50)]
    for module in modules:
        path = module.path.encode()
        parts.append(struct.pack("<3Q", module.base, module.end, len(path)) + path)
    parts += [struct.pack("<Q", address) for address, _ in blocks]
    parts += [struct.pack("<I", len(words)) for _, words in blocks]
    parts += [struct.pack(f"<{len(words)}I", *words) for _, words in blocks]
    parts += [struct.pack("<IIQ", kind, 0, value) for kind, value in boundaries]
    parts += [struct.pack("<IIQ", *record) for record in records]
    return b"".join(parts)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def two_segments(base: int) -> bytes:
    module = Module(path="/lib/libkernel.so", base=base, end=base + 0x1000)
    other = Module(path="/lib/libc.so.6", base=0x100000, end=0x200000)
    blocks = [(base + 16, [1, 2, 3]), (0x100010, [4]), (base + 64, [5, 6])]
    records = [(0, 0, 10), (0, 1, 7), (1, 2, 5), (1, 0, 1)]
    return encode(blocks, records, [(0, 1), (1, 0)], (module, other))


def test_totals_are_executions_times_lengths(tmp_path: Path) -> None:
    counts = read_counts(write(tmp_path / "counts", two_segments(0x4000)))
    assert counts.status is CountStatus.COMPLETE
    assert counts.boundaries == ((Boundary.BEGIN, 1), (Boundary.WATCH, 0))
    assert counts.segment_instructions.tolist() == [10 * 3 + 7, 5 * 2 + 3]
    assert counts.block_counts.tolist() == [11, 7, 5]
    assert counts.steady_instructions == 50
    assert counts.instructions_by_module() == {"libkernel.so": 43, "libc.so.6": 7}
    assert (counts.load_instructions, counts.total_instructions) == (50, 1000)


def test_code_outside_every_file_has_no_module(tmp_path: Path) -> None:
    counts = read_counts(write(tmp_path / "counts", encode([(0x9000, [1, 2])], [(0, 0, 4)], [(0, 0)])))
    assert counts.block_modules.tolist() == [-1]
    assert counts.instructions_by_module() == {"": 8}


def test_fingerprint_is_the_same_when_only_the_address_differs(tmp_path: Path) -> None:
    first = read_counts(write(tmp_path / "first", two_segments(0x4000)))
    moved = read_counts(write(tmp_path / "moved", two_segments(0x7F0000)))
    assert first.fingerprint() == moved.fingerprint()
    assert first.fingerprint("libkernel.so") == moved.fingerprint("libkernel.so")
    assert first.fingerprint("libkernel.so") != first.fingerprint("libc.so.6")


@pytest.mark.parametrize("change", [{"count": 11}, {"segment": 1}, {"word": 9}])
def test_fingerprint_differs_when_anything_that_was_executed_differs(change: dict[str, int], tmp_path: Path) -> None:
    module = (Module(path="lib.so", base=0, end=4096),)
    same = encode([(0, [1, 2])], [(0, 0, 10)], [(0, 1), (1, 0)], module)
    words, record = [1, change.get("word", 2)], (change.get("segment", 0), 0, change.get("count", 10))
    other = encode([(0, words)], [record], [(0, 1), (1, 0)], module)
    first, second = (read_counts(write(tmp_path / str(number), one)) for number, one in enumerate((same, other)))
    assert first.fingerprint() != second.fingerprint()


@given(blocks=BLOCKS, data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read_back(blocks: list[Block], data: st.DataObject, tmp_path: Path) -> None:
    boundaries = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63)), min_size=1, max_size=4))
    record = st.tuples(st.integers(0, len(boundaries) - 1), st.integers(0, len(blocks) - 1), st.integers(1, 2**40))
    records = data.draw(st.lists(record, max_size=10))
    counts = read_counts(write(tmp_path / "counts", encode(blocks, records, boundaries, status=3, threads=2)))
    assert counts.status is CountStatus.UNFINISHED
    assert counts.threads == 2
    assert counts.addresses.tolist() == [address for address, _ in blocks]
    assert [words.tolist() for words in counts.words] == [words for _, words in blocks]
    assert counts.boundaries == tuple((Boundary(kind), value) for kind, value in boundaries)
    rows = np.stack([counts.segments, counts.blocks, counts.counts], axis=1) if records else np.zeros((0, 3))
    assert [tuple(row) for row in rows.tolist()] == records


@pytest.mark.parametrize("size", [0, 4, 40, 60, 100, -1])
def test_a_cut_file_is_refused(size: int, tmp_path: Path) -> None:
    content = two_segments(0x4000)
    with pytest.raises(ArtifactError, match=r"counts: expected a whole count file.*Run the guest again"):
        read_counts(write(tmp_path / "counts", content[:size]))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    good = encode([(0, [1])], [(0, 0, 1)], [(0, 1)])
    wrong = {
        "magic": b"EKCOUNT9" + good[8:],
        "longer": good + b"\0",
        "block": encode([(0, [1])], [(0, 1, 1)], [(0, 1)]),
        "segment": encode([(0, [1])], [(1, 0, 1)], [(0, 1)]),
        "kind": encode([(0, [1])], [(0, 0, 1)], [(9, 1)]),
        "status": encode([(0, [1])], [(0, 0, 1)], [(0, 1)], status=77),
    }
    for name, content in wrong.items():
        with pytest.raises(ArtifactError, match="expected a whole count file"):
            read_counts(write(tmp_path / name, content))
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_counts(tmp_path / "missing")
