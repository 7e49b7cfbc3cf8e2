"""Let a ``.tflite`` model that was converted at batch 1 take any batch, where that gives right results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.formats.tflite.session import open_session
from edgekit.program.tflite import flatbuffer

_PROBE_BATCH = 3
_TOLERANCE = 1e-4
"""Of the largest output. Kernels may sum in another order at another batch."""


def free_batch(content: bytes, work_dir: Path) -> bytes:
    """Free the batch of every input, and prove it.

    litert-torch's own dynamic shapes fail on pooling followed by flattening. A batch-1 graph can be resized by the
    runtime as long as its constant shapes do not fix the batch: those of ``RESHAPE`` are rewritten from ``1`` to "what
    is left". Then three different samples are run one by one and together, and must agree.

    Args:
        content: The flatbuffer at batch 1.
        work_dir: Scratch folder.

    Raises:
        UnsupportedError: The graph does not take another batch, or gives other results at it.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    for index in (*flatbuffer.indices(graph.inputs), *flatbuffer.indices(graph.outputs)):
        tensor = graph.tensors[index]
        sizes = flatbuffer.indices(tensor.shape)
        if sizes[:1] == [1]:
            tensor.shapeSignature = np.array([-1, *sizes[1:]], dtype=np.int32)
    _free_reshapes(model, graph)
    path = work_dir / "free_batch.tflite"
    flatbuffer.write_model(model, path)
    prove(path)
    return path.read_bytes()


def _free_reshapes(model: Any, graph: Any) -> None:
    for operator in graph.operators:
        if flatbuffer.operator_name(model, operator) != "RESHAPE" or len(operator.inputs) < 2:
            continue
        shape = graph.tensors[operator.inputs[1]]
        data = flatbuffer.constant_of(model, shape)
        source = flatbuffer.indices(graph.tensors[operator.inputs[0]].shape)
        if data is None or source[:1] != [1]:
            continue
        sizes = data.view(np.int32)
        if sizes.size and sizes[0] == 1 and (sizes != -1).all():
            buffer = schema.BufferT()
            buffer.data = np.array([-1, *sizes[1:]], dtype=np.int32).view(np.uint8)
            model.buffers.append(buffer)
            copy = schema.TensorT()
            copy.__dict__.update(shape.__dict__)
            copy.buffer = len(model.buffers) - 1
            graph.tensors.append(copy)
            operator.inputs = np.array([operator.inputs[0], len(graph.tensors) - 1], dtype=np.int32)
            operator.builtinOptions = None
            operator.builtinOptionsType = schema.BuiltinOptions.NONE


def prove(path: Path) -> None:
    """Run three different samples one by one and together: they must agree.

    Args:
        path: A ``.tflite`` file whose inputs have a free batch.

    Raises:
        UnsupportedError: The graph does not take another batch, or gives other results at it.
    """
    generator = np.random.default_rng(0)
    with open_session(path, num_threads=1) as session:
        samples = [_probe(spec.dtype, spec.shape, generator) for spec in session.inputs]
        single = [session.run([array[i : i + 1] for array in samples]) for i in range(_PROBE_BATCH)]
        try:
            together = session.run(samples)
        except (ToolError, DataError) as error:
            raise _refusal(f"its graph fixes the batch at 1 ({error})") from error
    for position, spec in enumerate(session.outputs):
        alone = [outputs[position] for outputs in single]
        if not alone[0].shape or together[position].shape[0] != _PROBE_BATCH:
            raise _refusal(f"its output {spec.name!r} has no batch")
        expected = np.concatenate(alone).astype(np.float64)
        distance = np.abs(together[position].astype(np.float64) - expected).max()
        if not distance <= _TOLERANCE * max(1e-6, float(np.abs(expected).max())):
            raise _refusal(f"its output {spec.name!r} differs by {distance:g} between single samples and a batch")


def _probe(dtype: str, shape: tuple[int | None, ...], generator: np.random.Generator) -> Any:
    sizes = [size or _PROBE_BATCH for size in shape]
    if dtype == "bool":
        return np.ones(sizes, dtype=bool)
    if np.dtype(dtype).kind in "iu":
        return generator.integers(0, 2, sizes).astype(dtype)
    return generator.standard_normal(sizes).astype(dtype)


def _refusal(reason: str) -> UnsupportedError:
    return UnsupportedError("tflite with a free batch for this model", reason=reason, instead="batch: 1")
