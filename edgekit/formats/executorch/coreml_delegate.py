"""The partitioner of ExecuTorch's Core ML delegate (convert only: it executes on Apple's systems)."""

from __future__ import annotations

from executorch.exir.backend.partitioner import Partitioner

from edgekit.formats.light_imports import import_coremltools

DEFAULT_TARGET = "iOS17"


def make_partitioner(precision: str, minimum_deployment_target: str | None) -> Partitioner:
    """Make the partitioner.

    Args:
        precision: ``fp16`` computes in float16; ``fp32`` and ``int8`` in float32 between the integers, since float16
            would round the scales.
        minimum_deployment_target: Such as ``iOS17``.
    """
    coremltools = import_coremltools()
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=getattr(coremltools.target, minimum_deployment_target or DEFAULT_TARGET),
        compute_precision=coremltools.precision.FLOAT16 if precision == "fp16" else coremltools.precision.FLOAT32,
    )
    return CoreMLPartitioner(compile_specs=specs)
