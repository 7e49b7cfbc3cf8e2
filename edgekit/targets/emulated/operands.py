"""The operands of a disassembled A64 instruction, in our own register numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

NONE: Final = 255  # no register, no operand
STACK_POINTER, NZCV, FIRST_VECTOR = 31, 32, 33
_NAME_BYTES: Final = {"b": 1, "h": 2, "s": 4, "d": 8, "q": 16, "x": 8, "w": 4, "v": 16}


class CapstoneNames:
    """capstone's constants for registers and vector arrangements, turned into ours.

    Args:
        arm64: The module ``capstone.arm64``.
    """

    def __init__(self, arm64: Any) -> None:
        self.arm64 = arm64
        self.registers = _register_numbers(arm64)
        self.sizes = _arrangement_sizes(arm64)


def _register_numbers(arm64: Any) -> dict[int, int]:
    numbers = {arm64.ARM64_REG_SP: STACK_POINTER, arm64.ARM64_REG_WSP: STACK_POINTER}
    for index in range(31):
        for letter in "XW":
            numbers[getattr(arm64, f"ARM64_REG_{letter}{index}")] = index
    for index in range(32):
        for letter in "BHSDQV":
            numbers[getattr(arm64, f"ARM64_REG_{letter}{index}")] = FIRST_VECTOR + index
    return numbers


def _arrangement_sizes(arm64: Any) -> dict[int, tuple[int, int]]:
    """Capstone's vector arrangement -> (bytes of an element, number of elements)."""
    element = {"B": 1, "H": 2, "S": 4, "D": 8, "Q": 16}
    sizes: dict[int, tuple[int, int]] = {}
    for letter, size in element.items():
        for lanes in (1, 2, 4, 8, 16):
            code = getattr(arm64, f"ARM64_VAS_{lanes}{letter}", None)
            if code is not None:
                sizes[code] = (size, lanes)
    return sizes


@dataclass(slots=True)
class Operands:
    """Capstone's operands, in our register numbers."""

    writeback: bool
    registers: list[int] = field(default_factory=list)
    base: int = NONE
    index: int = NONE
    offset: int = 0
    step: int | None = None
    step_register: bool = False
    has_memory: bool = False
    lane: int = -1  # lane index of the first operand that is one lane, -1 none
    first_lane: int = -1  # lane index of the first register operand, -1 none
    last_lane: int = -1  # lane index of the last register operand
    wide: bool = False  # some operand is a 128-bit vector
    first_bytes: int = 0  # bytes of the first register operand (an element when it is a lane)
    immediates: list[int] = field(default_factory=list)
    prefix: str = ""  # letter of the first register's name: x w v q d s h b
    shift: int = 0
    half: bool = False  # some operand has half-precision lanes or is an h register

    @staticmethod
    def read(instruction: Any, names: CapstoneNames) -> Operands:
        """Collect them from one disassembled instruction."""
        arm64 = names.arm64
        found = Operands(writeback=bool(instruction.writeback))
        for operand in instruction.operands:
            if operand.type == arm64.ARM64_OP_REG:
                found._add_register(operand, instruction, names)
            elif operand.type == arm64.ARM64_OP_MEM:
                found.has_memory = True
                found.base = names.registers.get(operand.mem.base, NONE)
                found.index = names.registers.get(operand.mem.index, NONE)
                found.offset = operand.mem.disp
            elif operand.type == arm64.ARM64_OP_IMM:
                found.immediates.append(operand.imm)
        if not found.has_memory and instruction.mnemonic in ("ldr", "ldrsw"):
            found.has_memory = True  # a literal: the address is an immediate
        if found.writeback and found.has_memory:
            found._resolve_step(instruction.op_str)
        return found

    def _add_register(self, operand: Any, instruction: Any, names: CapstoneNames) -> None:
        number = names.registers.get(operand.reg)
        name: str = instruction.reg_name(operand.reg)
        if number is None and not name.endswith("zr"):
            return
        if self.has_memory and self.writeback:  # ld1 {v0.4s}, [x1], x2
            self.step_register = True
            self.index = NONE if number is None else number
            return
        size, lanes = names.sizes.get(operand.vas, (_NAME_BYTES.get(name[0], 8), 1))
        if not self.prefix:
            self.prefix, self.first_lane = name[0], operand.vector_index
            self.first_bytes = size if operand.vector_index >= 0 else size * lanes
        if number is not None:
            self.registers.append(number)
        self.wide = self.wide or size * lanes == 16 or name[0] == "q"
        self.half = self.half or name[0] == "h" or (size == 2 and operand.vas != 0)
        self.last_lane = operand.vector_index
        if operand.vector_index >= 0 and self.lane < 0:
            self.lane = operand.vector_index
        self.shift = max(self.shift, operand.shift.value if operand.shift.type else 0)

    def _resolve_step(self, text: str) -> None:
        if text.rstrip().endswith("!"):
            self.step = self.offset
        elif self.immediates:
            self.step = self.immediates[-1]
            self.offset = 0

    def address_registers(self) -> list[int]:
        """Registers that the address is made of."""
        return [number for number in (self.base, self.index) if number != NONE]
