"""The core tables against instruction throughputs that others measured, where they lie beside the project."""

from __future__ import annotations

import csv
from pathlib import Path

import a64_code as a64
import pytest

MEASURED = Path(__file__).parents[4] / "shared" / "data" / "microarch.csv"
CORES = {
    "Cortex-A53": "cortex-a53",
    "Cortex-A72": "cortex-a72",
    "Cortex-A76 (via Neoverse N1)": "cortex-a76",
    "Cortex-X1": "cortex-x1",
    "Apple M1 Firestorm": "firestorm",
}
SOURCES = {
    "fmla_4s": "fmla v{}.4s, v30.4s, v31.4s",
    "fmla_4s_by_element": "fmla v{}.4s, v30.4s, v7.s[1]",
    "fmla_8h": "fmla v{}.8h, v30.8h, v31.8h",
    "fmla_8h_by_element": "fmla v{}.8h, v30.8h, v7.h[1]",
    "fadd_4s": "fadd v{}.4s, v30.4s, v31.4s",
    "fmax_4s": "fmax v{}.4s, v30.4s, v31.4s",
    "sdot_4s": "sdot v{}.4s, v30.16b, v31.16b",
    "sdot_4s_by_element": "sdot v{}.4s, v30.16b, v7.4b[1]",
    "smlal_4s_4h": "smlal v{}.4s, v30.4h, v31.4h",
    "smull_8h_8b": "smull v{}.8h, v30.8b, v31.8b",
    "sadalp_4s_8h": "sadalp v{}.4s, v30.8h",
    "mla_4s": "mla v{}.4s, v30.4s, v31.4s",
    "sqrdmulh_4s": "sqrdmulh v{}.4s, v30.4s, v31.4s",
    "sqxtn": "sqxtn v{}.4h, v30.4s",
    "zip1_4s": "zip1 v{}.4s, v30.4s, v31.4s",
    "ldr_x": "ldr x{}, [x30]",
    "ldr_q (128-bit)": "ldr q{}, [x30]",
    "ldp_q": "ldp q{}, q31, [x30]",
    "str_q (128-bit)": "str q{}, [x30]",
    "stp_q": "stp q{}, q31, [x30]",
    "add_x": "add x{}, x30, x29",
}
# Register ports are modelled coarsely or not at all. The disputed measurements of stores contradict Arm's guides.
LOOSE = {
    ("cortex-x1", "fmla_4s"): 0.15,
    ("cortex-x1", "fmla_8h"): 0.16,
    ("cortex-x1", "fmla_4s_by_element"): 0.12,
    ("cortex-x1", "fmla_8h_by_element"): 0.12,
    ("cortex-x1", "ldp_q"): 0.13,
    ("firestorm", "fmla_4s_by_element"): 0.17,
    ("firestorm", "fmla_8h_by_element"): 0.17,
}
DISPUTED = {("cortex-a76", "str_q (128-bit)"), ("cortex-a76", "stp_q"), ("cortex-x1", "stp_q")}


def rows() -> list[tuple[str, str, float]]:
    if not MEASURED.is_file():
        return []
    found = []
    for row in csv.DictReader(MEASURED.read_text(encoding="utf-8").splitlines()):
        name = row["metric"].removesuffix(" throughput")
        core = CORES.get(row["core"])
        if core and row["metric"].endswith(" throughput") and name in SOURCES and (core, name) not in DISPUTED:
            found.append((core, name, float(row["value"])))
    return found


@pytest.mark.skipif(not MEASURED.is_file(), reason=f"needs {MEASURED}, which is not part of the project")
@pytest.mark.skipif(a64.assembler() is None, reason="needs binutils-aarch64-linux-gnu, to assemble the instructions")
@pytest.mark.parametrize("core", CORES.values())
def test_core_reaches_the_measured_throughput_when_instructions_are_independent(core: str, tmp_path: Path) -> None:
    wrong = {}
    measured = [(name, value) for owner, name, value in rows() if owner == core]
    assert len(measured) >= 15
    for name, value in measured:
        code = a64.assemble([SOURCES[name].format(8 + i % 16) for i in range(48)], tmp_path)
        modelled = len(code) / a64.block_cycles(code, core, tmp_path)
        if modelled != pytest.approx(value, rel=LOOSE.get((core, name), 0.03)):
            wrong[name] = (value, modelled)
    assert not wrong, "instruction: (measured, modelled) a cycle"
