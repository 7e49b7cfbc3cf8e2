"""A64 instruction words: their timing class, the user's group, registers, accumulator, write-back and bytes moved.

capstone disassembles; what an instruction reads and writes is worked out here from its operands, because capstone's own
list is empty for Armv8.2 half-precision and dot-product instructions and wrong for structure loads. Every instruction
falls into one of `CLASSES`, the rows of a core table; `GROUPS` are the coarser kinds that a report shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingToolError, UnsupportedError
from edgekit.targets.emulated.mnemonics import (
    ACCUMULATING,
    CLASSES,
    DESTRUCTIVE,
    FLAG_READERS,
    FLAG_WRITERS,
    GROUPS,
    NO_DESTINATION,
    group_of,
    scalar_class,
    vector_class,
)
from edgekit.targets.emulated.operands import FIRST_VECTOR, NONE, NZCV, CapstoneNames, Operands

__all__ = ["CLASSES", "GROUPS", "DecodedWords", "decode_words", "disassemble", "write_decode_table"]

FLAG_CONDITIONAL, FLAG_CALL, FLAG_RETURN, FLAG_INDIRECT = 1, 2, 4, 8
FLAG_PREFETCH, FLAG_BASE_KNOWN, FLAG_STEP_KNOWN, FLAG_ADD_IMMEDIATE = 16, 32, 64, 128
_MAX_READ, _MAX_WRITTEN = 8, 6

DECODE_DTYPE: Final = np.dtype(
    [
        ("word", "<u4"),
        ("class_index", "u1"),
        ("group_index", "u1"),
        ("num_read", "u1"),
        ("num_written", "u1"),
        ("read", "u1", (_MAX_READ,)),
        ("written", "u1", (_MAX_WRITTEN,)),
        ("accumulator", "u1"),  # index into read of the operand that multiply-accumulate forwarding serves
        ("writeback", "u1"),  # base register that an addressing mode updates
        ("base", "u1"),  # base register of the address
        ("flags", "u1"),
        ("load_bytes", "u1"),
        ("store_bytes", "u1"),
        ("offset", "<i4"),  # address = base + offset, or result = base + offset for FLAG_ADD_IMMEDIATE
        ("step", "<i4"),  # write-back adds this to the base
    ]
)  # 36 bytes, no padding: targets/native/coresim/decode_table.c reads it as it is
_MAGIC: Final = 0x43444B45  # "EKDC"


@dataclass(frozen=True, slots=True)
class DecodedWords:
    """What each of a run's instruction words does; one row a word, in the order given.

    Attributes:
        table: ``DECODE_DTYPE[n]``; registers are 0-30 general, 31 stack pointer, 32 flags, 33-64 vector, 255 none.
    """

    table: NDArray[Any]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """``u8[n]``: index into `CLASSES`."""
        return np.asarray(self.table["class_index"])

    @property
    def groups(self) -> NDArray[np.uint8]:
        """``u8[n]``: index into `GROUPS`."""
        return np.asarray(self.table["group_index"])

    @property
    def load_bytes(self) -> NDArray[np.uint8]:
        """``u8[n]``: bytes that one execution loads."""
        return np.asarray(self.table["load_bytes"])

    @property
    def store_bytes(self) -> NDArray[np.uint8]:
        """``u8[n]``: bytes that one execution stores."""
        return np.asarray(self.table["store_bytes"])


class _Decoder:
    """Holds capstone and the rows made so far, by word."""

    def __init__(self) -> None:
        try:
            import capstone
            from capstone import arm64
        except ImportError as error:
            raise MissingToolError(
                "Emulated targets decode aarch64 code with the package capstone, which is not installed; "
                "install it with: pip install 'edgekit[emulated]'"
            ) from error
        self._disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        self._disassembler.detail = True
        self._names = CapstoneNames(arm64)
        self._rows: dict[int, tuple[Any, ...]] = {}

    def instruction(self, word: int) -> Any:
        """Capstone's instruction, or None where the word is none that it knows."""
        return next(self._disassembler.disasm(struct.pack("<I", word), 0x10000), None)

    def row(self, word: int) -> tuple[Any, ...]:
        """The ``DECODE_DTYPE`` row of one word."""
        found = self._rows.get(word)
        if found is None:
            found = self._rows[word] = self._decode(word)
        return found

    def _decode(self, word: int) -> tuple[Any, ...]:
        if (word >> 25) & 0xF == 0b0010:  # the whole SVE encoding space
            raise UnsupportedError(
                f"The SVE instruction 0x{word:08x}",
                reason="the core models have no scalable vectors, and no described phone reports them to its programs",
                instead="run with a processor that has no SVE (the personas of edgekit do not offer it)",
            )
        instruction = self.instruction(word)
        if instruction is None:
            return _row(word, _Facts(class_name="other", group="other"))
        return _row(word, self._facts(instruction))

    def _facts(self, instruction: Any) -> _Facts:
        mnemonic: str = instruction.mnemonic
        facts = _Facts()
        operands = Operands.read(instruction, self._names)
        if mnemonic.startswith("prf"):
            facts.class_name, facts.group, facts.flags = "prefetch", "other", FLAG_PREFETCH
            facts.read = operands.address_registers()
            _address(facts, operands)
        elif operands.has_memory and not mnemonic.startswith(("dc", "ic")):
            self._memory_facts(facts, mnemonic, operands)
        elif mnemonic in _BRANCHES or mnemonic.startswith("b."):
            _branch_facts(facts, mnemonic, operands)
        else:
            _register_facts(facts, mnemonic, operands)
        return facts

    def _memory_facts(self, facts: _Facts, mnemonic: str, operands: Operands) -> None:
        is_store = mnemonic.startswith("st")
        data = operands.registers
        width = _access_bytes(mnemonic, operands)
        facts.class_name = _memory_class(mnemonic, operands)
        facts.group = "store" if is_store else "load"
        facts.load_bytes, facts.store_bytes = (0, width) if is_store else (width, 0)
        facts.read = operands.address_registers()
        exclusive_status = is_store and mnemonic.startswith(("stxr", "stlxr", "stxp", "stlxp"))
        if facts.class_name == "atomic":
            facts.load_bytes = width
            facts.store_bytes = 0 if mnemonic.startswith("ld") and "x" in mnemonic else width
            facts.read += [] if mnemonic.startswith(("ldx", "ldax")) else data
            facts.written = data[:1] if exclusive_status else data
        elif is_store:
            facts.read += data
        else:
            facts.written = data
            if operands.lane >= 0:  # a load to one lane keeps the others
                facts.read += data
        _address(facts, operands)
        if operands.writeback:
            facts.writeback = operands.base
            if operands.step is None and not operands.step_register and "1234".find(mnemonic[2:3]) >= 0:
                operands.step = width  # capstone leaves out the immediate of structure loads; it is always the size
            if operands.step is not None:
                facts.step = operands.step
                facts.flags |= FLAG_STEP_KNOWN


@dataclass(slots=True)
class _Facts:
    class_name: str = "other"
    group: str = "other"
    read: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    accumulator: int = NONE
    writeback: int = NONE
    base: int = NONE
    flags: int = 0
    load_bytes: int = 0
    store_bytes: int = 0
    offset: int = 0
    step: int = 0


_BRANCHES: Final = frozenset({"b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz"})
_ATOMIC_STARTS: Final = ("ldadd", "ldclr", "ldeor", "ldset", "ldsm", "ldum", "swp", "cas", "ldx", "ldax", "stx", "stlx")


def _access_bytes(mnemonic: str, operands: Operands) -> int:
    structure = mnemonic[2:3] in "1234" and operands.prefix == "v"
    if structure:
        if mnemonic.endswith("r"):  # ld1r: one element goes to every lane
            return _element_bytes(operands) * int(mnemonic[2])
        return operands.first_bytes * len(operands.registers)
    narrow = {"b": 1, "h": 2}.get(mnemonic.rstrip("laup")[-1:], 0) if operands.prefix in "wx" else 0
    if mnemonic.endswith("sw"):
        narrow = 4
    size = narrow or operands.first_bytes
    return size * 2 if mnemonic.startswith(("ldp", "stp", "ldnp", "stnp", "ldxp", "stxp", "ldpsw")) else size


def _element_bytes(operands: Operands) -> int:
    return 2 if operands.half else 4  # the two that ld1r is used with in kernels; a byte differs by little


def _memory_class(mnemonic: str, operands: Operands) -> str:
    kind = "store" if mnemonic.startswith("st") else "load"
    if mnemonic.startswith(_ATOMIC_STARTS):
        return "atomic"
    if operands.prefix == "v":
        return _structure_class(kind, mnemonic, operands)
    pair = mnemonic.startswith(("ldp", "stp", "ldnp", "stnp"))
    middle = "pair_" if pair else ""
    width = "q" if operands.prefix == "q" else "d" if operands.prefix in "dshb" else "x"
    return f"{kind}_{middle}{width}"


def _structure_class(kind: str, mnemonic: str, operands: Operands) -> str:
    if mnemonic.endswith("r"):
        return "load_dup"
    if operands.lane >= 0:
        return f"{kind}_lane"
    if mnemonic[2] != "1":
        return f"{kind}_interleaved"
    count = min(len(operands.registers), 4)
    return {1: f"{kind}_q" if operands.wide else f"{kind}_d"}.get(count, f"{kind}_{count}q")


def _address(facts: _Facts, operands: Operands) -> None:
    facts.base, facts.offset = operands.base, operands.offset
    if operands.base != NONE and (operands.index == NONE or operands.step_register):
        facts.flags |= FLAG_BASE_KNOWN


def _branch_facts(facts: _Facts, mnemonic: str, operands: Operands) -> None:
    facts.class_name = facts.group = "branch"
    facts.read = list(operands.registers)
    if mnemonic.startswith("b."):
        facts.read, facts.flags = [NZCV], FLAG_CONDITIONAL
    elif mnemonic in ("cbz", "cbnz", "tbz", "tbnz"):
        facts.flags = FLAG_CONDITIONAL
    elif mnemonic == "ret":
        facts.read, facts.flags = facts.read or [30], FLAG_RETURN
    if mnemonic in ("bl", "blr"):
        facts.written, facts.flags = [30], FLAG_CALL
    if mnemonic in ("br", "blr"):
        facts.flags |= FLAG_INDIRECT


def _register_facts(facts: _Facts, mnemonic: str, operands: Operands) -> None:
    registers = operands.registers
    vectors = [number for number in registers if number >= FIRST_VECTOR]
    if vectors:
        facts.class_name = vector_class(
            mnemonic,
            wide=operands.wide,
            half=operands.half,
            by_element=operands.last_lane >= 0 and len(registers) > 2,
            to_general=registers[0] < FIRST_VECTOR,
            from_general=registers[-1] < FIRST_VECTOR,
            lane=operands.lane >= 0,
            num_vectors=len(vectors),
        )
    else:
        facts.class_name = scalar_class(mnemonic, shift=operands.shift)
    facts.group = group_of(facts.class_name, mnemonic, half=operands.half)
    keeps = mnemonic in DESTRUCTIVE or _accumulates(mnemonic) or mnemonic.endswith("n2")
    keeps = keeps or (operands.first_lane >= 0 and mnemonic in ("mov", "ins", "fmov"))
    has_result = mnemonic not in NO_DESTINATION
    facts.written = registers[:1] if has_result else []
    facts.read = registers[1:] if has_result and not keeps else list(registers)
    _accumulator(facts, mnemonic, registers)
    if mnemonic in FLAG_READERS:
        facts.read = [*facts.read, NZCV]
    if mnemonic in FLAG_WRITERS:
        facts.written = [*facts.written, NZCV]
    _add_immediate(facts, mnemonic, operands)


def _accumulates(mnemonic: str) -> bool:
    return mnemonic in ACCUMULATING or mnemonic.rstrip("2") in ACCUMULATING


def _accumulator(facts: _Facts, mnemonic: str, registers: list[int]) -> None:
    if mnemonic in ("fmadd", "fmsub", "fnmadd", "fnmsub", "madd", "msub"):
        facts.accumulator = len(facts.read) - 1
    elif _accumulates(mnemonic):
        facts.accumulator = facts.read.index(registers[0])


def _add_immediate(facts: _Facts, mnemonic: str, operands: Operands) -> None:
    """Mark ``add x1, x2, #8`` and ``mov x1, x2``, so that a prefetch's address can be followed through them."""
    registers = operands.registers
    if facts.class_name != "alu" or len(registers) != 2 or operands.shift:
        return
    if mnemonic in ("add", "sub") and len(operands.immediates) == 1:
        facts.base, facts.flags = registers[1], FLAG_ADD_IMMEDIATE
        facts.offset = operands.immediates[0] if mnemonic == "add" else -operands.immediates[0]
    elif mnemonic == "mov" and not operands.immediates:
        facts.base, facts.flags = registers[1], FLAG_ADD_IMMEDIATE


def _row(word: int, facts: _Facts) -> tuple[Any, ...]:
    read = list(dict.fromkeys(facts.read))
    accumulator = facts.accumulator
    if accumulator != NONE:
        number = facts.read[accumulator]
        # A register that is multiplied too is needed early; nothing is forwarded to it.
        accumulator = read.index(number) if facts.read.count(number) == 1 else NONE
    written = [number for number in dict.fromkeys(facts.written) if number != facts.writeback]
    return (
        word,
        CLASSES.index(facts.class_name),
        GROUPS.index(facts.group),
        min(len(read), _MAX_READ),
        min(len(written), _MAX_WRITTEN),
        _padded(read, _MAX_READ),
        _padded(written, _MAX_WRITTEN),
        accumulator,
        facts.writeback,
        facts.base,
        facts.flags,
        facts.load_bytes,
        facts.store_bytes,
        facts.offset,
        facts.step,
    )


def _padded(numbers: list[int], length: int) -> tuple[int, ...]:
    return tuple((numbers + [NONE] * length)[:length])


_shared_decoder: list[_Decoder] = []  # made at first use, so that importing this module needs no capstone


def _decoder() -> _Decoder:
    if not _shared_decoder:
        _shared_decoder.append(_Decoder())
    return _shared_decoder[0]


def decode_words(words: Iterable[int] | NDArray[np.uint32]) -> DecodedWords:
    """Decode A64 instruction words; each distinct word is decoded once a process.

    Args:
        words: 32-bit instruction words, in any order.

    Returns:
        One row a word. A word that is no instruction known to capstone is of class ``other``.

    Raises:
        UnsupportedError: A word is an SVE instruction.
        MissingToolError: capstone is not installed.
    """
    decoder = _decoder()
    rows = [decoder.row(int(word)) for word in words]
    return DecodedWords(np.array(rows, dtype=DECODE_DTYPE))


def disassemble(word: int) -> str:
    """The word as assembly text, e.g. ``fmla v1.4s, v2.4s, v3.s[1]``."""
    instruction = _decoder().instruction(word)
    return f".inst 0x{word:08x}" if instruction is None else f"{instruction.mnemonic} {instruction.op_str}".strip()


def write_decode_table(words: NDArray[np.uint32], path: Path) -> None:
    """Write the rows of the distinct words among ``words`` for coresim: magic, count, rows (little endian)."""
    table = decode_words(np.unique(words)).table
    path.write_bytes(struct.pack("<II", _MAGIC, len(table)) + table.tobytes())
