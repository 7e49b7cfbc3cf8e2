from __future__ import annotations

from pathlib import Path

import a64_code as a64
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import UnsupportedError
from edgekit.targets.emulated import decode
from edgekit.targets.emulated.decode import CLASSES, DECODE_DTYPE, GROUPS, decode_words, disassemble, write_decode_table

V = 33  # number of v0


def facts(word: int) -> dict[str, object]:
    row = decode_words([word]).table[0]
    return {
        "class": CLASSES[row["class_index"]],
        "group": GROUPS[row["group_index"]],
        "read": {int(number) for number in row["read"][: row["num_read"]]},
        "written": {int(number) for number in row["written"][: row["num_written"]]},
        "load": int(row["load_bytes"]),
        "store": int(row["store_bytes"]),
    }


# word, source, class, group, read, written, bytes loaded, bytes stored
ENCODINGS = [
    (0x4E3FCFC0, "fmla v0.4s, v30.4s, v31.4s", "fmla_q", "vector_float", {V, V + 30, V + 31}, {V}, 0, 0),
    (0x4FA31041, "fmla v1.4s, v2.4s, v3.s[1]", "fmla_element_q", "vector_float", {V + 1, V + 2, V + 3}, {V + 1}, 0, 0),
    (0x4E430C41, "fmla v1.8h, v2.8h, v3.8h", "fmla_half_q", "vector_float16", {V + 1, V + 2, V + 3}, {V + 1}, 0, 0),
    (0x4E9F97C0, "sdot v0.4s, v30.16b, v31.16b", "dot_q", "dot_product", {V, V + 30, V + 31}, {V}, 0, 0),
    (0x4E83A441, "smmla v1.4s, v2.16b, v3.16b", "matmul", "dot_product", {V + 1, V + 2, V + 3}, {V + 1}, 0, 0),
    (0x6E43FC41, "bfdot v1.4s, v2.8h, v3.8h", "dot_q", "dot_product", {V + 1, V + 2, V + 3}, {V + 1}, 0, 0),
    (0x3CC10430, "ldr q16, [x1], #16", "load_q", "load", {1}, {V + 16}, 16, 0),
    (0xAD400440, "ldp q0, q1, [x2]", "load_pair_q", "load", {2}, {V, V + 1}, 32, 0),
    (0x0D409041, "ld1 {v1.s}[1], [x2]", "load_lane", "load", {2, V + 1}, {V + 1}, 4, 0),
    (0x4D40C841, "ld1r {v1.4s}, [x2]", "load_dup", "load", {2}, {V + 1}, 4, 0),
    (0x4CDF0041, "ld4 {v1.16b-v4.16b}, [x2], #64", "load_interleaved", "load", {2}, set(range(V + 1, V + 5)), 64, 0),
    (0xA9BE7BFD, "stp x29, x30, [sp, #-32]!", "store_pair_x", "store", {29, 30, 31}, set(), 0, 16),
    (0x39400041, "ldrb w1, [x2]", "load_x", "load", {2}, {1}, 1, 0),
    (0x4E1C1C41, "ins v1.s[3], w2", "general_to_vector", "vector_integer", {2, V + 1}, {V + 1}, 0, 0),
    (0x4E614841, "sqxtn2 v1.8h, v2.4s", "vnarrow", "vector_integer", {V + 1, V + 2}, {V + 1}, 0, 0),
    (0x54000001, "b.ne", "branch", "branch", {32}, set(), 0, 0),
    (0xF1000400, "subs x0, x0, #1", "alu", "scalar", {0}, {0, 32}, 0, 0),
    (0x9A830041, "csel x1, x2, x3, eq", "alu", "scalar", {2, 3, 32}, {1}, 0, 0),
    (0xF9810020, "prfm pldl1keep, [x1, #512]", "prefetch", "other", {1}, set(), 0, 0),
    (0xD503201F, "nop", "nop", "other", set(), set(), 0, 0),
]


@pytest.mark.parametrize(("word", "source", "cls", "group", "read", "written", "load", "store"), ENCODINGS)
def test_decode_words_knows_what_an_instruction_does_when_given_its_word(
    word: int, source: str, cls: str, group: str, read: set[int], written: set[int], load: int, store: int
) -> None:
    expected = {"class": cls, "group": group, "read": read, "written": written, "load": load, "store": store}
    assert facts(word) == expected, f"{source} = {disassemble(word)}"


@pytest.mark.parametrize("word", [a64.FMLA[0], a64.SDOT])
def test_decode_words_marks_the_accumulator_when_an_instruction_accumulates(word: int) -> None:
    row = decode_words([word]).table[0]
    assert row["read"][row["accumulator"]] == V


def test_decode_words_marks_the_addend_when_a_scalar_multiply_add_has_it_last() -> None:
    row = decode_words([0x1F031041]).table[0]  # fmadd s1, s2, s3, s4
    assert row["read"][row["accumulator"]] == V + 4
    assert V + 1 not in row["read"][: row["num_read"]]


@pytest.mark.parametrize(
    ("word", "offset", "step"),
    [
        (0x3CC10430, 0, 16),  # ldr q16, [x1], #16
        (0x3CC10C30, 16, 16),  # ldr q16, [x1, #16]!
        (0x4C9F7820, 0, 16),  # st1 {v0.4s}, [x1], #16
        (0xF85F8C22, -8, -8),  # ldr x2, [x1, #-8]!
    ],
)
def test_decode_words_gives_base_offset_and_step_when_an_address_writes_back(word: int, offset: int, step: int) -> None:
    row = decode_words([word]).table[0]
    assert (row["base"], row["writeback"], row["offset"], row["step"]) == (1, 1, offset, step)
    assert row["flags"] & decode.FLAG_STEP_KNOWN
    assert 1 not in row["written"][: row["num_written"]]  # the base is ready a cycle later, not with the data


def test_decode_words_leaves_the_step_open_when_a_register_is_added() -> None:
    row = decode_words([0x4CC57841]).table[0]  # ld1 {v1.4s}, [x2], x5
    assert row["writeback"] == 2
    assert not row["flags"] & decode.FLAG_STEP_KNOWN
    assert set(row["read"][: row["num_read"]]) == {2, 5}


@pytest.mark.parametrize("word", [0x65820020, 0x2598E3E0])  # fadd z0.s, z1.s, z2.s; ptrue p0.s
def test_decode_words_refuses_when_an_instruction_is_sve(word: int) -> None:
    with pytest.raises(UnsupportedError, match="SVE"):
        decode_words([word])


def test_decode_words_calls_a_word_other_when_it_is_no_instruction() -> None:
    assert facts(0xFFFFFFFF)["class"] == "other"


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_decode_words_stays_within_its_tables_when_given_any_word(word: int) -> None:
    if (word >> 25) & 0xF == 0b0010:
        return
    row = decode_words([word]).table[0]
    assert row["class_index"] < len(CLASSES)
    assert row["group_index"] < len(GROUPS)
    assert all(number < 65 for number in row["read"][: row["num_read"]])
    assert all(number < 65 for number in row["written"][: row["num_written"]])
    assert row["accumulator"] == decode.NONE or row["accumulator"] < row["num_read"]


def test_write_decode_table_writes_each_word_once_when_words_repeat(tmp_path: Path) -> None:
    write_decode_table(np.array([a64.FMUL, a64.FMUL, a64.LOAD_X], dtype=np.uint32), tmp_path / "table")
    content = (tmp_path / "table").read_bytes()
    assert len(content) == 8 + 2 * 36
    rows = np.frombuffer(content, DECODE_DTYPE, offset=8)
    assert rows["word"].tolist() == sorted([a64.FMUL, a64.LOAD_X])


@pytest.mark.skipif(a64.assembler() is None, reason="needs binutils-aarch64-linux-gnu, to assemble what is decoded")
@pytest.mark.parametrize(
    ("source", "cls"),
    [
        ("usdot v1.4s, v2.16b, v3.16b", "dot_q"),
        ("bfmmla v1.4s, v2.8h, v3.8h", "matmul"),
        ("sdot v1.2s, v2.8b, v3.4b[1]", "dot_d"),
        ("umlal2 v1.4s, v2.8h, v3.8h", "smlal"),
        ("sadalp v1.4s, v2.8h", "adalp"),
        ("sqrdmulh v1.4s, v2.4s, v3.4s", "sqrdmulh_q"),
        ("srshl v1.4s, v2.4s, v3.4s", "vround_shift_q"),
        ("sxtl v1.8h, v2.8b", "vshift_q"),
        ("fcvtns v1.4s, v2.4s", "fcvt_q"),
        ("fminnm v1.4s, v2.4s, v3.4s", "fminmax_q"),
        ("fmaxv s1, v2.4s", "reduce"),
        ("dup v1.4s, v2.s[1]", "permute_q"),
        ("dup v1.4s, w2", "general_to_vector"),
        ("umov w1, v2.b[3]", "vector_to_general"),
        ("tbl v1.16b, {v2.16b, v3.16b}, v4.16b", "table_long"),
        ("bit v1.16b, v2.16b, v3.16b", "vlogic_q"),
        ("movi v1.4s, #0", "vmove_immediate"),
        ("ldadd x1, x2, [x3]", "atomic"),
        ("add x1, x2, x3, lsl #7", "alu_shift"),
        ("ld1 {v1.4s-v4.4s}, [x2]", "load_4q"),
        ("st2 {v1.4s, v2.4s}, [x2]", "store_interleaved"),
        ("fcvtl v1.4s, v2.4h", "fcvt_q"),
        ("fdiv s1, s2, s3", "fdiv_d"),
    ],
)
def test_decode_words_finds_the_class_when_the_assembler_made_the_word(source: str, cls: str, tmp_path: Path) -> None:
    (word,) = a64.assemble([source], tmp_path)
    assert facts(word)["class"] == cls
