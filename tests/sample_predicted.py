"""Predicted profiles as edgekit would record them, beside the measured ones of ``sample_builds``."""

from __future__ import annotations

from dataclasses import replace

import sample_builds

from edgekit.records import (
    LatencyEstimateMs,
    Manifest,
    PredictedOperator,
    PredictedProfile,
    ProfileConfig,
    RuntimeInfo,
)

BASIS = "20 published rows on the neural engine of a16, a17-pro, none adjusted on its own chip: error 22% median"
TARGET = "apple-m1"


def profile(name: str, median_ms: float = 0.4) -> PredictedProfile:
    """A predicted profile on ``apple-m1``."""
    return PredictedProfile(
        artifact=name,
        runtime=RuntimeInfo(name="Core ML", version="not run"),
        target=TARGET,
        machine={"chip": "Apple M1", "cpu": "4 + 4 cores, up to 3200 MHz", "figures": "0badcafe0bad"},
        config=ProfileConfig(num_runs=0, warmup_runs=0),
        compute_units="all",
        latency_ms=LatencyEstimateMs(
            median=median_ms,
            mean=median_ms,
            unanchored=median_ms,
            low=median_ms / 2,
            high=median_ms / 0.8,
            error=1.0,
            basis=BASIS,
        ),
        operators=(
            PredictedOperator(
                name="conv1",
                type="conv",
                unit="neural_engine",
                time_ms=median_ms * 0.75,
                share=0.75,
                macs=1_000_000,
                bytes=4096,
                bound="launch",
            ),
            PredictedOperator(
                name="nms",
                type="non_maximum_suppression",
                unit="cpu",
                time_ms=median_ms * 0.25,
                share=0.25,
                macs=0,
                bytes=0,
                bound="memory",
            ),
        ),
        notes=("predicted: nothing ran",),
    )


def manifest(median_ms: float = 0.4) -> Manifest:
    """The sample build, its artifacts predicted on ``apple-m1`` besides the host."""
    build = sample_builds.manifest()
    reports = [
        replace(report, profiles=(*report.profiles, profile(report.id, median_ms))) if report.profiles else report
        for report in build.artifacts
    ]
    return replace(build, artifacts=tuple(reports))
