"""Which timing class a mnemonic belongs to: the rows of every core table, and the groups shown to users."""

from __future__ import annotations

from typing import Final

CLASSES: Final[tuple[str, ...]] = (
    # integer side
    "nop", "alu", "alu_shift", "mul", "div", "branch", "system", "atomic", "prefetch",
    # loads: general register, 64-bit or narrower vector, 128-bit vector; pairs; structures
    "load_x", "load_pair_x", "load_d", "load_q", "load_pair_d", "load_pair_q",
    "load_dup", "load_lane", "load_2q", "load_3q", "load_4q", "load_interleaved",
    "store_x", "store_pair_x", "store_d", "store_q", "store_pair_d", "store_pair_q",
    "store_lane", "store_2q", "store_3q", "store_4q", "store_interleaved",
    # floating point; _q is 128 bits wide, _d 64 bits or scalar
    "fmla_q", "fmla_d", "fmla_element_q", "fmla_half_q", "fmla_half_d", "fmla_half_element_q",
    "fmul_q", "fmul_d", "fadd_q", "fadd_d", "fminmax_q", "fminmax_d", "fcmp", "fcvt_q", "fcvt_d", "fdiv_q", "fdiv_d",
    # integer vectors
    "dot_q", "dot_d", "matmul", "smull", "smlal", "mul_q", "mul_d", "mla_q", "mla_d", "adalp",
    "sqrdmulh_q", "sqrdmulh_d",
    "vadd_q", "vadd_d", "vlogic_q", "vlogic_d", "vshift_q", "vshift_d", "vround_shift_q", "vround_shift_d", "vnarrow",
    "permute_q", "permute_d", "table", "table_long", "reduce", "vmove_immediate", "insert",
    "vector_to_general", "general_to_vector", "other",
)  # fmt: skip

GROUPS: Final[tuple[str, ...]] = (
    "scalar", "branch", "vector_float", "vector_float16", "vector_integer", "dot_product", "load", "store", "other",
)  # fmt: skip

NO_DESTINATION: Final = frozenset(
    {"cmp", "cmn", "tst", "ccmp", "ccmn", "fcmp", "fcmpe", "fccmp", "fccmpe", "msr", "dc", "ic", "svc", "nop", "hint"}
)
FLAG_WRITERS: Final = frozenset(
    {"adds", "subs", "ands", "bics", "adcs", "sbcs", "negs", "ngcs", "cmp", "cmn", "tst", "ccmp", "ccmn"}
    | {"fcmp", "fcmpe", "fccmp", "fccmpe"}
)
FLAG_READERS: Final = frozenset(
    {"csel", "csinc", "csinv", "csneg", "cset", "csetm", "cinc", "cinv", "cneg", "fcsel", "adc", "sbc", "adcs", "sbcs"}
    | {"ccmp", "ccmn", "fccmp", "fccmpe", "ngc", "ngcs"}
)
ACCUMULATING: Final = frozenset(
    {"fmla", "fmls", "fmlal", "fmlsl", "mla", "mls", "smlal", "smlsl", "umlal", "umlsl", "sqdmlal", "sqdmlsl"}
    | {"sdot", "udot", "usdot", "sudot", "smmla", "ummla", "usmmla", "bfdot", "bfmmla", "bfmlalb", "bfmlalt"}
    | {"sadalp", "uadalp", "saba", "uaba", "sabal", "uabal", "ssra", "usra", "srsra", "ursra", "sqrdmlah", "sqrdmlsh"}
    | {"fcmla", "aese", "aesd"}
)
DESTRUCTIVE: Final = frozenset(
    {"bsl", "bit", "bif", "tbx", "sli", "sri", "movk", "bfi", "bfxil", "bfm", "sha1c", "sha256h"}
)

_DOT: Final = ("sdot", "udot", "usdot", "sudot", "bfdot")
_MATMUL: Final = ("smmla", "ummla", "usmmla", "bfmmla")
_LONG_MULTIPLY: Final = ("smull", "umull", "sqdmull", "pmull")
_LONG_ACCUMULATE: Final = ("smlal", "umlal", "smlsl", "umlsl", "sqdmlal", "sqdmlsl", "bfmlal", "sabal", "uabal")
_ACCUMULATE: Final = ("sadalp", "uadalp", "saba", "uaba", "ssra", "usra", "srsra", "ursra")
_NARROW: Final = (
    "sqxtn", "uqxtn", "sqxtun", "shrn", "rshrn", "sqshrn", "sqrshrn", "uqshrn", "uqrshrn", "sqshrun", "sqrshrun",
    "addhn", "raddhn", "subhn", "rsubhn",
)  # fmt: skip
_ROUND_SHIFT: Final = ("srshl", "urshl", "sqrshl", "uqrshl", "sqshl", "uqshl", "srshr", "urshr")
_SHIFT: Final = ("sshl", "ushl", "shl", "sshr", "ushr", "sxtl", "uxtl", "sli", "sri", "xtn")
_PERMUTE: Final = ("zip", "uzp", "trn", "ext", "rev")
_REDUCE: Final = (
    "addv", "saddlv", "uaddlv", "smaxv", "sminv", "umaxv", "uminv", "fmaxv", "fminv", "fmaxnmv", "fminnmv", "faddp",
)  # fmt: skip
_LOGIC: Final = ("and", "orr", "eor", "bic", "bsl", "bit", "bif", "mvn", "not", "orn", "cnt", "rbit")
_FLOAT_COMPARES: Final = ("fcmeq", "fcmg", "fcmle", "fcmlt", "fac")
_FLOAT_CONVERT: Final = ("fcvt", "scvtf", "ucvtf", "frint", "bfcvt")
_FLOAT_ESTIMATES: Final = ("frecp", "frsqrt", "fabs", "fneg", "fabd", "fadd", "fsub", "fcsel")
_SCALAR_MULTIPLY: Final = frozenset(
    {"madd", "mul", "msub", "mneg", "umull", "smull", "umulh", "smulh", "umaddl", "smaddl", "umsubl", "smsubl"}
)
_SYSTEM: Final = frozenset(
    {"svc", "mrs", "msr", "dmb", "dsb", "isb", "dc", "ic", "clrex", "sys", "brk", "udf", "wfe", "yield"}
)
_NOPS: Final = frozenset({"nop", "hint", "bti", "paciasp", "autiasp", "pacibsp", "autibsp", "xpaclri", "csdb"})


def scalar_class(mnemonic: str, *, shift: int) -> str:
    """Class of an instruction on general registers. ``shift`` is the left shift of its last operand."""
    if mnemonic in _SCALAR_MULTIPLY or mnemonic.startswith("crc32"):
        return "mul"
    if mnemonic in ("udiv", "sdiv"):
        return "div"
    if mnemonic in _SYSTEM:
        return "system"
    if mnemonic in _NOPS:
        return "nop"
    # Arm's guides: an add with a shift of up to 4 costs nothing more on the cores from A76 on; elsewhere it is rare
    return "alu_shift" if shift > 4 else "alu"


def vector_class(
    mnemonic: str,
    *,
    wide: bool,
    half: bool,
    by_element: bool,
    to_general: bool,
    from_general: bool,
    lane: bool,
    num_vectors: int,
) -> str:
    """Class of an instruction on vector registers.

    Args:
        mnemonic: capstone's, lower case.
        wide: An operand is 128 bits wide.
        half: An operand has half-precision (or 16-bit) lanes.
        by_element: The last operand is one lane of a register.
        to_general: The result is a general register.
        from_general: The last operand is a general register.
        lane: Some operand is one lane.
        num_vectors: Vector registers among the operands.
    """
    suffix = "_q" if wide else "_d"
    found = _move_class(mnemonic, to_general, from_general, lane, num_vectors)
    if found is None and mnemonic.startswith(("f", "scvtf", "ucvtf", "bf")):
        found = _float_class(mnemonic, suffix, half, by_element)
    return found or _integer_class(mnemonic, suffix, num_vectors)


def _move_class(mnemonic: str, to_general: bool, from_general: bool, lane: bool, num_vectors: int) -> str | None:
    if to_general:
        return "vector_to_general"
    if from_general and mnemonic not in _NOPS:
        return "general_to_vector"
    if mnemonic in ("ins", "mov") and lane:
        return "insert"
    if mnemonic in ("movi", "mvni") or (mnemonic == "fmov" and num_vectors == 1):
        return "vmove_immediate"
    return None


def _float_class(mnemonic: str, suffix: str, half: bool, by_element: bool) -> str | None:
    if mnemonic.startswith(("fmla", "fmls", "fmadd", "fmsub", "fnmadd", "fnmsub", "fcmla")):
        return _multiply_accumulate_class(suffix, half, by_element)
    table = (
        (_DOT, "dot" + suffix),
        (_MATMUL, "matmul"),
        (("bfmlal",), "smlal"),
        (("fmul", "fnmul"), "fmul" + suffix),
        (("fdiv", "fsqrt"), "fdiv" + suffix),
        (_REDUCE, "reduce"),
        (("fmax", "fmin"), "fminmax" + suffix),
        (_FLOAT_COMPARES, "fadd" + suffix),
        (("fcmp", "fccmp"), "fcmp"),
        (_FLOAT_CONVERT, "fcvt" + suffix),
        (_FLOAT_ESTIMATES, "fadd" + suffix),
        (("fmov",), "vlogic" + suffix),
    )
    return next((name for starts, name in table if mnemonic.startswith(starts)), None)


def _multiply_accumulate_class(suffix: str, half: bool, by_element: bool) -> str:
    kind = "fmla_half" if half else "fmla"
    return f"{kind}_element_q" if by_element and suffix == "_q" else kind + suffix


def _integer_class(mnemonic: str, suffix: str, num_vectors: int) -> str:
    if mnemonic in ("tbl", "tbx"):
        return "table_long" if num_vectors > 3 else "table"
    if mnemonic in ("mul", "pmul"):
        return "mul" + suffix
    if mnemonic in ("mla", "mls"):
        return "mla" + suffix
    table = (
        (_DOT, "dot" + suffix),
        (_MATMUL, "matmul"),
        (_LONG_MULTIPLY, "smull"),
        (_LONG_ACCUMULATE, "smlal"),
        (("sqrdmulh", "sqdmulh", "sqrdmla", "sqrdmls"), "sqrdmulh" + suffix),
        (_ACCUMULATE, "adalp"),
        (_NARROW, "vnarrow"),
        (_ROUND_SHIFT, "vround_shift" + suffix),
        (_SHIFT, "vshift" + suffix),
        ((*_PERMUTE, "dup"), "permute" + suffix),
        (_REDUCE, "reduce"),
        ((*_LOGIC, "mov"), "vlogic" + suffix),
        (_SIMPLE, "vadd" + suffix),
    )
    return next((name for starts, name in table if mnemonic.startswith(starts)), "other")


_SIMPLE: Final = (
    "add", "sub", "neg", "abs", "cm", "smax", "smin", "umax", "umin", "sabd", "uabd", "sqadd", "uqadd", "sqsub",
    "uqsub", "saddl", "uaddl", "ssubl", "usubl", "saddw", "uaddw", "ssubw", "usubw", "shadd", "uhadd", "srhadd",
    "urhadd", "shsub", "uhsub", "sqabs", "sqneg", "suqadd", "usqadd", "clz", "cls", "saddlp", "uaddlp", "shll",
)  # fmt: skip

_MOVES: Final = frozenset({"vector_to_general", "general_to_vector"})
_FLOAT_CLASSES: Final = ("fmla", "fmul", "fadd", "fminmax", "fcmp", "fcvt", "fdiv")
_OTHER_CLASSES: Final = frozenset({"nop", "system", "prefetch", "other"})


def group_of(class_name: str, mnemonic: str, *, half: bool) -> str:
    """The user's group of an instruction that is neither a load, a store nor a branch."""
    if class_name in _OTHER_CLASSES:
        return "other"
    if class_name in _MOVES and mnemonic.startswith(_FLOAT_CONVERT):
        return "vector_float"
    if class_name in ("alu", "alu_shift", "mul", "div"):
        return "scalar"
    if class_name in ("dot_q", "dot_d", "matmul"):
        return "dot_product"
    if class_name.startswith(_FLOAT_CLASSES) or (class_name == "reduce" and mnemonic.startswith("f")):
        return "vector_float16" if half and not mnemonic.startswith(_FLOAT_CONVERT) else "vector_float"
    return "vector_integer"
