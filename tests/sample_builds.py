"""A build as edgekit would record it, with everything that a report must show: kept and broken budgets, a failed
export, Core ML that cannot run here, operators that a delegate refused, names that would break a careless template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.records import (
    Artifact,
    ArtifactReport,
    DelegateCoverage,
    EpochMetrics,
    FormatName,
    LatencyMs,
    LayerError,
    Manifest,
    MeasuredProfile,
    MemoryBytes,
    Operator,
    OperatorTime,
    OutputParity,
    Parity,
    Precision,
    PrecisionAudit,
    ProfileConfig,
    Quantization,
    RuntimeInfo,
    SkippedLayer,
    SourceModel,
    StageFailure,
    TensorSpec,
    TrainingReport,
    WeightHistogram,
    artifact_id,
)

MACHINE = {"cpu": "AMD EPYC 7B13 64-Core Processor", "cores": "2", "memory": "23.4 GiB", "os": "Linux 6.1 x86_64"}
NOT_HERE = "Core ML runs on Apple devices only; this machine is Linux x86_64"
RUNTIMES = {"tflite": "LiteRT", "executorch": "ExecuTorch", "coreml": "Core ML", "onnx": "ONNX Runtime"}
VERSIONS = {"tflite": "2.3.0", "executorch": "1.5.1", "coreml": "9.0", "onnx": "1.32.0"}
BROKEN = "logits: 9 steps from the program, at most 1 is allowed"
INTEGER = ("int8", "int8-dynamic")


def latency(median_ms: float, runs: int = 50, seed: int = 0) -> LatencyMs:
    """Timings around a median, with the tail that real ones have."""
    draw = np.random.default_rng(seed)
    samples = np.sort(median_ms * (1 + 0.02 * np.abs(draw.normal(size=runs)) + 0.2 * (draw.random(runs) > 0.97)))
    samples = samples * median_ms / float(np.median(samples))
    p5, p90, p95, p99 = (float(np.percentile(samples, q)) for q in (5, 90, 95, 99))
    return LatencyMs(
        init=median_ms * 4,
        first=median_ms * 2,
        mean=float(samples.mean()),
        median=median_ms,
        min=float(samples.min()),
        max=float(samples.max()),
        p5=p5,
        p90=p90,
        p95=p95,
        p99=p99,
        std=float(samples.std()),
        samples=tuple(float(draw.permutation(samples)[index]) for index in range(runs)),
        init_cold=median_ms * 9,
    )


def profile(name: str, median_ms: float, peak_bytes: int, operators: tuple[OperatorTime, ...] = ()) -> MeasuredProfile:
    format_name = name.split("/")[0]
    return MeasuredProfile(
        artifact=name,
        runtime=RuntimeInfo(name=RUNTIMES[format_name], version=VERSIONS[format_name], delegates=("XNNPACK",)),
        target="host",
        machine=dict(MACHINE),
        config=ProfileConfig(num_runs=50, warmup_runs=10, num_threads=1, profile_ops=True),
        latency_ms=latency(median_ms),
        memory_bytes=MemoryBytes(init=peak_bytes // 2, peak=peak_bytes),
        operators=operators,
    )


def operators(precision: str, delegated: bool = True) -> tuple[Operator, ...]:
    compute = "int8" if precision in INTEGER else "float16" if precision == "fp16" else "float32"
    size = 1 if precision in INTEGER else 4
    found = [
        Operator(index=0, name="serving_default_x:0_quantize", type="QUANTIZE", delegated=delegated,
                 compute_dtype="none", kind="quantize"),
        *(
            Operator(index=i + 1, name=f"features.{i}.conv", type="CONV_2D" if i % 2 == 0 else "DEPTHWISE_CONV_2D",
                     delegated=delegated, compute_dtype=compute, macs=48_000 * (i + 1),
                     weight_bytes=576 * size * (i + 1),
                     weight_dtype="int8" if size == 1 else "float32")
            for i in range(6)
        ),
        Operator(index=7, name="head.norm", type="LAYER_NORM", delegated=False, compute_dtype="float32", macs=0,
                 reason="XNNPACK has no layer normalization"),
        Operator(index=8, name="head.squeeze<1>", type="RESHAPE", delegated=False, compute_dtype="none", kind="layout",
                 reason="a view costs nothing & is left to the runtime"),
        Operator(index=9, name="classifier", type="FULLY_CONNECTED", delegated=delegated, compute_dtype=compute,
                 macs=640, weight_bytes=640 * size, weight_dtype="int8" if size == 1 else "float32"),
    ]  # fmt: skip
    return tuple(found)


def artifact(format_name: FormatName, precision: Precision, size_bytes: int, backend: str | None = None) -> Artifact:
    quantized = precision in INTEGER
    dtype = "int8" if quantized else "float32"
    scale = Quantization(scale=(0.0314159,), zero_point=(-3,)) if quantized else None
    return Artifact(
        format=format_name,
        precision=precision,
        path=Path(f"artifacts/{format_name}/digits-{precision}.bin"),
        sha256=("%064x" % (size_bytes * 7919)),
        size_bytes=size_bytes,
        inputs=(TensorSpec(name="x", dtype=dtype, shape=(1, 1, 8, 8), layout="NCHW", quantization=scale),),
        outputs=(TensorSpec(name="logits", dtype=dtype, shape=(None, 10), quantization=scale),),
        backend=backend,
        minimum_deployment_target="iOS17" if format_name == "coreml" else None,
        operators=operators(precision),
        coverage=DelegateCoverage(
            delegate="XNNPACK",
            partitions=2,
            operators=0.8,
            macs=0.9994,
            time=0.97,
            refused=(("head.norm", "XNNPACK has no layer normalization"), ("head.squeeze<1>", "a view & nothing else")),
        ),
        audit=PrecisionAudit(
            operators={"int8": 0.875, "float32": 0.125} if quantized else {"float32": 1.0},
            macs={"int8": 1.0} if quantized else {"float32": 1.0},
            weights={"int8": 0.98, "int32": 0.02} if quantized else {"float32": 1.0},
            float_islands=("head.norm",) if quantized else (),
            stray_pairs=("head.squeeze<1>",) if quantized else (),
        ),
        notes=("the input is int8; quantize with scale 0.0314159, zero point -3",) if quantized else (),
    )


def output_parity(name: str, sqnr_db: float, steps: float | None) -> OutputParity:
    return OutputParity(
        name=name,
        max_abs_error=10 ** (-sqnr_db / 20) * 9.3,
        mean_abs_error=10 ** (-sqnr_db / 20) * 2.1,
        sqnr_db=sqnr_db,
        cosine=1 - 10 ** (-sqnr_db / 10) / 2,
        top1_agreement=0.9961,
        max_steps=steps,
        mean_steps=None if steps is None else steps / 50,
        exact=0.93,
        within_one_step=None if steps is None else 1.0,
    )


def parity(sqnr_db: float, accuracy: float, steps: float | None = None, failed: str | None = None) -> Parity:
    return Parity(
        status="fail" if failed else "pass",
        reason=failed,
        samples=256,
        versus_source=(output_parity("logits", sqnr_db, None),),
        versus_program=(output_parity("logits", 300.0 if steps == 0 else 96.0, steps),),
        accuracy=accuracy,
        accuracy_drop=0.9861 - accuracy,
    )


def times(median_ms: float) -> tuple[OperatorTime, ...]:
    shares = (0.46, 0.31, 0.2, 0.03)
    names = ("Convolution (NHWC, QC8) IGEMM", "Fully Connected (NC, QC8)", "features.1.conv", "head.norm")
    return tuple(
        OperatorTime(name=name, type=name.split(" ")[0], delegated=index < 3, time_ms=median_ms * share, share=share,
                     reason=None if index < 3 else "XNNPACK has no layer normalization", macs=None)
        for index, (name, share) in enumerate(zip(names, shares, strict=True))
    )  # fmt: skip


def built(
    format_name: FormatName, precision: Precision, size_bytes: int, median_ms: float, compared: Parity
) -> ArtifactReport:
    name = artifact_id(format_name, precision)
    found = (profile(name, median_ms, size_bytes * 6, times(median_ms)),)
    return ArtifactReport(
        id=name, artifact=artifact(format_name, precision, size_bytes), parity=compared, profiles=found
    )


def not_run(precision: Precision, size_bytes: int) -> ArtifactReport:
    compared = Parity(status="not run", reason=NOT_HERE, samples=0)
    return ArtifactReport(id=f"coreml/{precision}", artifact=artifact("coreml", precision, size_bytes), parity=compared)


def training(epochs: int = 12) -> TrainingReport:
    metrics = [
        EpochMetrics(
            epoch=index,
            phase="train" if index < epochs - 3 else "qat",
            loss=2.2 * 0.72**index + 0.05,
            accuracy=1 - 0.8 * 0.7**index,
            validation_accuracy=0.985 - 0.75 * 0.68**index,
            learning_rate=3e-3 * (1 - index / epochs),
            sparsity=min(0.5, index * 0.07),
            samples_per_second=5210.0 + 31 * index,
        )
        for index in range(epochs)
    ]
    return TrainingReport(
        device="cpu",
        autocast="none",
        epochs=tuple(metrics),
        seconds=42.7,
        sparsity=0.5,
        sparsity_by_layer={"features.0.conv": 0.5, "features.2.conv": 0.5},
    )


def histograms(layers: int = 4) -> tuple[WeightHistogram, ...]:
    draw = np.random.default_rng(3)
    found = []
    for index in range(layers):
        counts, edges = np.histogram(draw.normal(0, 0.2 / (index + 1), size=2000), bins=40)
        found.append(
            WeightHistogram(
                layer=f"features.{index}.conv",
                edges=tuple(float(edge) for edge in edges),
                counts=tuple(int(count) for count in counts),
            )
        )
    return tuple(found)


RECIPE = {
    "schema_version": 1,
    "name": "digits",
    "model": {"source": "sample_models.digits.model_pytorch:build", "args": {"note": "<script>alert(1)</script>"}},
    "data": {"module": "sample_models.digits.data:load"},
    "export": [{"format": "tflite", "precision": ["fp32", "int8"]}, {"format": "coreml", "precision": ["fp16"]}],
    "budgets": [
        {"artifact": "tflite/int8", "size": "80 KiB", "latency_p50": {"host": "0.5 ms"}, "accuracy": 0.97},
        {"artifact": "*/int8", "max_steps": 1, "delegated": 0.5},
    ],
}


def manifest() -> Manifest:
    """Eight artifacts of a small classifier: five that hold, one whose parity fails, one that failed, two not run."""
    return Manifest(
        schema_version=1,
        name="digits",
        edgekit_version="0.1.0",
        recipe=dict(RECIPE),
        tools={"torch": "2.13.0+cpu", "executorch": "1.5.1", "litert-torch": "0.10.0", "coremltools": "9.0"},
        seed=7,
        source=SourceModel(
            framework="pytorch",
            source="sample_models.digits.model_pytorch:build",
            digest="ab12" * 16,
            parameters=38_426,
            size_bytes=153_704,
            inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 1, 8, 8), layout="NCHW"),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=(1, 10)),),
        ),
        source_accuracy=0.9861,
        data_digest="cd34" * 16,
        training=training(),
        artifacts=(
            built("tflite", "fp32", 158_720, 0.412, parity(133.2, 0.9861)),
            built("tflite", "int8", 52_480, 0.183, parity(33.9, 0.9833, steps=1.0)),
            built("executorch", "fp32", 163_840, 0.391, parity(135.0, 0.9861)),
            built("executorch", "int8", 55_296, 0.171, parity(33.9, 0.9833, steps=1.0)),
            built("onnx", "fp32", 160_100, 0.52, parity(131.0, 0.9861)),
            built("onnx", "int8", 61_000, 0.64, parity(11.2, 0.91, steps=9, failed=BROKEN)),
            not_run("fp16", 84_000),
            not_run("int8", 57_000),
            ArtifactReport(
                id="tflite/int16x8",
                artifact=None,
                error=StageFailure(
                    stage="export:tflite/int16x8",
                    message="the child process was ended by SIGABRT",
                    log="logs/export-tflite-int16x8.log",
                ),
            ),
        ),
        skipped=(SkippedLayer(name="head.norm", type="LayerNorm", reason="no format quantizes LayerNorm"),),
        layer_errors=tuple(
            LayerError(layer=f"features.{i}.conv", type="Conv2d", sqnr_db=40.0 - 3.5 * i, max_abs_error=0.01 * (i + 1))
            for i in range(6)
        ),
        weight_histograms=histograms(),
        warnings=("calibration: 12 of 200 samples are alike; activation ranges may be too narrow",),
    )  # fmt: skip


def twins() -> tuple[Manifest, Manifest]:
    """The build as of two frameworks: the second trains slower, is smaller, and lacks the last two artifacts."""
    first = replace(manifest(), name="digits-pytorch")
    reports = tuple(_as_twin(report) for report in first.artifacts[:-2])
    assert first.source is not None and first.training is not None
    source = replace(first.source, framework="keras", source="sample_models.digits.model_keras:build")
    epochs = tuple(
        replace(epoch, samples_per_second=epoch.samples_per_second * 0.6, loss=epoch.loss * 1.1)
        for epoch in first.training.epochs
    )
    training_ = replace(first.training, seconds=63.0, epochs=epochs)
    return first, replace(first, name="digits-keras", source=source, artifacts=reports, training=training_)


def _as_twin(report: ArtifactReport) -> ArtifactReport:
    """Seven per cent smaller, one sample of 256 more right, slower in ExecuTorch and faster elsewhere."""
    found, compared = report.artifact, report.parity
    if found is None or compared is None or not report.profiles:
        return report
    accuracy, drop = compared.accuracy or 0.0, compared.accuracy_drop or 0.0
    factor = 1.2 if found.format == "executorch" else 0.9
    return replace(
        report,
        artifact=replace(found, size_bytes=round(found.size_bytes * 0.93)),
        parity=replace(compared, accuracy=accuracy + 1 / 256, accuracy_drop=drop - 1 / 256),
        profiles=(profile(report.id, report.profiles[0].latency_ms.median * factor, 200_000),),
    )


def with_artifact(build: Manifest, changed: ArtifactReport) -> Manifest:
    """The same build with one artifact's report replaced."""
    return replace(build, artifacts=tuple(changed if one.id == changed.id else one for one in build.artifacts))


def find(build: Manifest, name: str) -> ArtifactReport:
    return next(report for report in build.artifacts if report.id == name)
