"""Tables as they look in a pipe, and names that are no markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import pytest
import sample_builds
import sample_emulated
import sample_predicted
from rich.console import Console, Group, RenderableType

from edgekit.budget import check
from edgekit.doctor import BackendFact, DoctorReport, ExtraFact, PackageFact
from edgekit.records import Operator, Parity
from edgekit.report import tables
from edgekit.report.compare import compare_builds
from edgekit.targets.emulated.setup import Piece
from edgekit.targets.schema import Device, DeviceListing, Diagnosis
from edgekit.verify.operators import OperatorComparison, OperatorDistance

GOLDEN = Path(__file__).parent / "golden"
BUILD = sample_builds.manifest()
NEXT = replace(BUILD, name="next", artifacts=BUILD.artifacts[:3])
EMULATED = sample_emulated.manifest()
PREDICTED = sample_predicted.manifest()
ARTIFACT = sample_builds.find(BUILD, "tflite/int8")


@dataclass(frozen=True)
class Planned:
    id: str
    program: str
    dynamic_batch: bool = False
    not_here: str | None = None


@dataclass(frozen=True)
class Compared:
    artifact: str
    parity: Parity


def text_of(renderable: RenderableType, width: int = 150) -> str:
    stream = StringIO()
    Console(file=stream, width=width, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def audit() -> RenderableType:
    assert ARTIFACT.artifact is not None
    assert ARTIFACT.artifact.audit is not None
    return tables.audit_table(ARTIFACT.artifact.audit, ARTIFACT.artifact.coverage)


def plan() -> RenderableType:
    planned = [Planned("tflite/int8", "int8"), Planned("coreml/fp16", "fp32", True, sample_builds.NOT_HERE)]
    return tables.plan_table(planned, {item.id: ["host", "pixel-4"] for item in planned})


def parities() -> RenderableType:
    return tables.parity_table([Compared(one.id, one.parity) for one in BUILD.artifacts if one.parity])


def artifacts_compared() -> RenderableType:
    rows = [("a.tflite", "tflite", 52480, 10, 0.8), ("b.mlpackage", "coreml", 84000, 12, 1.0)]
    return tables.artifact_comparison_table(rows, (0.183, None))


def operator_distances() -> RenderableType:
    names = (
        ("image_to_fp16", "cast", "image"),
        ("conv2d_cast_fp16", "conv", "conv2d"),
        ("dequantize_3", "dequantize", "add"),
    )
    whole = [
        OperatorDistance(
            name=name,
            type=kind,
            shape=(1, 8, 4, 4),
            beside=beside,
            layer="stem.[0]" if kind == "conv" else None,
            matched="place" if kind == "dequantize" else "name",
            sqnr_db=sqnr_db,
            max_abs_error=0.0 if sqnr_db == 300 else 0.0125,
            lost_db=lost_db,
            factor=78.34 if kind == "dequantize" else 1.0,
            overflows=False,
        )
        for (name, kind, beside), sqnr_db, lost_db in zip(names, (300.0, 69.4, 38.2), (0.0, 0.0, 27.8), strict=True)
    ]
    alone = replace(whole[0], name="extra", beside=None, matched=None, sqnr_db=None, max_abs_error=None, lost_db=None)
    broken = replace(alone, name="square", type="mul", beside="pow_1", matched="name", overflows=True)
    return Group(
        tables.operator_distance_table(
            OperatorComparison(samples=4, operators=(*whole, alone), steepest="dequantize_3")
        ),
        tables.operator_distance_table(OperatorComparison(samples=1, operators=(broken,), steepest="square")),
        tables.operator_distance_table(OperatorComparison(samples=1, operators=(whole[0],), steepest=None)),
    )


def targets() -> RenderableType:
    host = Device(schema_version=1, name="host", kind="host", description="this machine")
    return tables.targets_table(
        [
            DeviceListing(name="host", path=Path("host.yaml"), origin="packaged", device=host),
            DeviceListing(name="old", path=Path("old.yaml"), origin="user", device=None, problem="unknown key [x]"),
        ]
    )


def diagnosis() -> RenderableType:
    return tables.diagnosis_table(
        Diagnosis(device="host", usable=True, facts={"cpu": "AMD"}, problems=("the governor is [powersave]",))
    )


def doctor() -> RenderableType:
    return tables.doctor_table(
        DoctorReport(
            edgekit="0.1.0",
            machine=sample_builds.MACHINE,
            cpu_flags=("avx2", "avx_vnni"),
            gpu="none",
            cache_folder=Path("/cache"),
            disk_free_bytes=5 * 1024**3,
            extras=(
                ExtraFact(
                    name="onnx",
                    satisfied=False,
                    packages=(
                        PackageFact(name="onnx", required=">=1.19", installed="1.20", satisfied=True),
                        PackageFact(name="onnxruntime", required=">=1.32", installed="1.2", satisfied=False),
                        PackageFact(name="onnxscript", required="", installed=None, satisfied=False),
                    ),
                ),
            ),
            backends=(
                BackendFact(
                    format="coreml", backend="default", exports=True, runs=False, reason=sample_builds.NOT_HERE
                ),
            ),
            tools={"adb": None, "xcrun": "/usr/bin/xcrun"},
            emulation=(
                Piece(name="qemu-aarch64", found="7.2.22 /usr/bin/qemu-aarch64", ready=True),
                Piece(name="litert runner", problem="not compiled", ready=False, needed=False),
            ),
            devices=(Diagnosis(device="host", usable=True, facts={}),),
            problems=("extra 'onnx' is not whole",),
        )
    )


RENDERED: dict[str, Callable[[], RenderableType]] = {
    "summary": lambda: tables.summary_table(BUILD),
    "verdicts_against_baseline": lambda: tables.verdict_table(check(NEXT, budgets=[], baseline=BUILD).verdicts),
    "summary_emulated": lambda: tables.summary_table(EMULATED),
    "compare_emulated": lambda: tables.compare_table(
        compare_builds(EMULATED, sample_emulated.manifest(instructions=1_500_000))
    ),
    "verdicts": lambda: tables.verdict_table(check(BUILD).verdicts),
    "parity": parities,
    "plan": plan,
    "compare": lambda: tables.compare_table(
        compare_builds(BUILD, replace(BUILD, name="next", artifacts=BUILD.artifacts[:3]))
    ),
    "compare_frameworks": lambda: tables.compare_table(compare_builds(*sample_builds.twins())),
    "facts": lambda: tables.facts_table(compare_builds(*sample_builds.twins())),
    "operators": lambda: tables.operator_table(sample_builds.operators("int8")),
    "audit": audit,
    "profile": lambda: tables.profile_table(ARTIFACT.profiles),
    "profile_emulated": lambda: tables.profile_table([sample_emulated.profile("tflite/int8")]),
    "emulated_operators": lambda: tables.emulated_operator_table(sample_emulated.profile("tflite/int8").operators),
    "summary_predicted": lambda: tables.summary_table(PREDICTED),
    "profile_predicted": lambda: tables.profile_table([sample_predicted.profile("coreml/fp16")]),
    "predicted_operators": lambda: tables.profiled_operators_table(sample_predicted.profile("coreml/fp16")),
    "operator_times": lambda: tables.operator_time_table(ARTIFACT.profiles[0].operators),
    "output_parity": lambda: tables.output_parity_table(ARTIFACT.parity.versus_source if ARTIFACT.parity else ()),
    "artifacts_compared": artifacts_compared,
    "operator_distances": operator_distances,
    "targets": targets,
    "diagnosis": diagnosis,
    "doctor": doctor,
}


@pytest.mark.parametrize("name", RENDERED)
def test_table_equals_the_golden_text(name: str) -> None:
    assert text_of(RENDERED[name]()) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_every_table_has_a_golden_text() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(RENDERED)


def test_names_are_printed_as_they_are_when_they_look_like_markup() -> None:
    name, reason = "[red]conv[/red]", "[b]x"
    operator = Operator(index=0, name=name, type="[/]", delegated=False, compute_dtype="int8", reason=reason)
    found = text_of(tables.operator_table([operator]))
    assert name in found
    assert f"no: {reason}" in found


@pytest.mark.parametrize("width", [72, 100])
def test_summary_keeps_names_and_standings_whole_when_the_terminal_is_narrow(width: int) -> None:
    lines = text_of(tables.summary_table(BUILD), width).splitlines()
    assert max(map(len, lines)) <= width
    for report, word in (("executorch/fp32", "pass"), ("coreml/fp16", "not run"), ("tflite/int16x8", "error")):
        assert any(report in line and word in line for line in lines)


def test_broken_checks_come_first_whatever_their_order() -> None:
    lines = text_of(RENDERED["verdicts"]()).splitlines()
    words = [line.split()[0] for line in lines if line.strip().startswith(("pass", "fail", "not run"))]
    assert words[:4] == ["fail", "fail", "fail", "not"]
