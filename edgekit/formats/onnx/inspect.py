"""What an ``.onnx`` file says of itself, and what ONNX Runtime makes of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from edgekit.contracts import Inspection
from edgekit.formats.onnx.model_file import read_model, specs_of
from edgekit.formats.onnx.operators import list_operators
from edgekit.formats.onnx.session import load_runtime, session_options


def inspect(path: Path) -> Inspection:
    """Inspect a model.

    Operators are those that ONNX Runtime executes: a quantized model holds pairs of ``DequantizeLinear`` and
    ``QuantizeLinear`` around float operations, and the runtime fuses them into integer kernels (``QLinearConv``). What
    it did not fuse shows as float operations between them. Fusions that depend on the processor are left out, so that
    the answer is the same on every machine.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
        ToolError: ONNX Runtime cannot prepare it.
    """
    model = read_model(path)
    return Inspection(
        inputs=specs_of(model.graph.input),
        outputs=specs_of(model.graph.output),
        operators=list_operators(_as_executed(path), model),
        partitions=1,
        metadata={
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "opset": str(next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)),
        },
    )


def _as_executed(path: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session_options(num_threads=1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        load_runtime(path, options)
        return onnx.load(optimized)
