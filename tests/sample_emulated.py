"""Emulated profiles as edgekit would record them, beside the measured ones of ``sample_builds``."""

from __future__ import annotations

from dataclasses import replace

import sample_builds

from edgekit.records import (
    DeviceParity,
    EmulatedOperator,
    EmulatedProfile,
    GuestMemoryBytes,
    InstructionCounts,
    LatencyEstimateMs,
    Manifest,
    ProfileConfig,
    RuntimeInfo,
)

BASIS = "8 published rows of 2 devices with cortex-a76 that the static model was held out from (unanchored): error 9%"
MACHINE = {
    "cpu": "Cortex-A76 at 2840 MHz (gold)",
    "core": "cortex-a76",
    "core_table": "5d41402abc4b",
    "clock": "2840 MHz",
    "caches": "L1 64 KiB, L2 512 KiB",
    "memory": "13 GB/s, 120 ns",
    "emulator": "qemu-aarch64 7.2.22",
}


def counts(total: int) -> InstructionCounts:
    """Half of them vector, the rest spread."""
    groups = {"vector_float": total // 2, "load": total // 4, "store": total // 16}
    groups["scalar"] = total - sum(groups.values())
    return InstructionCounts(
        groups=groups,
        load_bytes=groups["load"] * 16,
        store_bytes=groups["store"] * 16,
        loads_by_width={16: groups["load"]},
        stores_by_width={16: groups["store"]},
    )


def operator(name: str, instructions: int, whole: int, kernel: str, time_ms: float | None = 0.1) -> EmulatedOperator:
    return EmulatedOperator(
        name=name,
        type="Convolution (NHWC, F32) IGEMM",
        delegated=True,
        time_ms=time_ms,
        share=instructions / whole,
        instructions=instructions,
        counts=counts(instructions),
        kernel=kernel,
        kernels={kernel: instructions},
        node=f"features.{name}",
    )


def estimate(median_ms: float, error: float = 0.25, anchors: tuple[str, ...] = ()) -> LatencyEstimateMs:
    basis = f"anchored on {', '.join(anchors)}; {BASIS}" if anchors else BASIS
    return LatencyEstimateMs(
        median=median_ms,
        mean=median_ms,
        unanchored=median_ms,
        low=median_ms / (1 + error),
        high=median_ms / (1 - error),
        error=error,
        basis=basis,
        anchors=anchors,
    )


def profile(name: str, instructions: int = 1_200_000, median_ms: float | None = 0.4) -> EmulatedProfile:
    """An emulated profile on ``pixel-4``; ``median_ms`` None: counts only."""
    runtime = name.split("/")[0]
    compared = DeviceParity(
        status="pass",
        reason=None,
        samples=1,
        versus_host=(sample_builds.output_parity("logits", 300.0, None),),
        versus_source=(sample_builds.output_parity("logits", 120.0, None),),
    )
    times = (None, None) if median_ms is None else (0.3, 0.1)
    return EmulatedProfile(
        artifact=name,
        runtime=RuntimeInfo(name=sample_builds.RUNTIMES[runtime], version="2.3.0", delegates=("XNNPACK",)),
        target="pixel-4",
        machine=dict(MACHINE),
        persona="cortex-a76-0badcafe",
        model="static" if median_ms is not None else "counts",
        config=ProfileConfig(num_runs=1, warmup_runs=1, profile_ops=True),
        latency_ms=estimate(median_ms) if median_ms is not None else None,
        cycles=round(median_ms * 2_840_000) if median_ms is not None else None,
        instructions=instructions,
        load_instructions=9_000_000,
        counts=counts(instructions),
        memory_bytes=GuestMemoryBytes(init=120_000, peak=240_000, arena=65_536),
        operators=(
            operator("conv1", 700_000, instructions, "xnn_f32_igemm_minmax_ukernel_6x8__asm_aarch64_neonfma", times[0]),
            operator("conv2", 400_000, instructions, "xnn_f32_gemm_minmax_ukernel_6x8__asm_aarch64_neonfma", times[1]),
        ),
        parity=compared,
        notes=("one inference is counted",),
    )


def manifest(**changes: int) -> Manifest:
    """The sample build, profiled on ``pixel-4`` besides the host.

    Args:
        changes: ``instructions`` of ``tflite/int8``.
    """
    build = sample_builds.manifest()
    reports = []
    for report in build.artifacts:
        if report.artifact is None or not report.profiles:
            reports.append(report)
            continue
        kept = changes if report.id == "tflite/int8" else {}
        reports.append(replace(report, profiles=(*report.profiles, profile(report.id, **kept))))
    return replace(build, artifacts=tuple(reports))
