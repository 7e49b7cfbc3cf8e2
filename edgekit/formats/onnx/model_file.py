"""Read and write ``.onnx`` files: checked, and without what ties them to the machine that wrote them."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from edgekit.errors import ArtifactError
from edgekit.records import TensorSpec


def read_model(path: Path) -> onnx.ModelProto:
    """Read and check a model.

    Raises:
        ArtifactError: No such file, truncated, damaged or not a valid model.
    """
    if not path.is_file():
        raise ArtifactError(f"expected an .onnx file; there is no file {str(path)!r}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"{str(path)!r} is truncated, damaged or not an ONNX model: {reason}. Export it again"
        ) from error
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it, whole or not at all; the same bytes for the same model, wherever it was made.

    Stack traces, module paths and documentation that exporters leave in nodes are removed: they carry the paths of the
    machine's files.
    """
    strip_origins(model)
    onnx.checker.check_model(model)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(model.SerializeToString(deterministic=True))
    partial.replace(path)


def strip_origins(model: onnx.ModelProto) -> None:
    """Remove documentation and metadata of exporters; names of nodes and tensors stay."""
    model.doc_string = ""
    del model.metadata_props[:]
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for item in [*graph.node, *graph.value_info]:
            item.doc_string = ""
            del item.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]


def specs_of(values: object) -> tuple[TensorSpec, ...]:
    """Describe graph inputs or outputs (``ValueInfoProto``)."""
    return tuple(
        TensorSpec(name=value.name, dtype=dtype_name(value.type.tensor_type.elem_type), shape=_shape(value))
        for value in values  # type: ignore[attr-defined]
    )


def dtype_name(element_type: int) -> str:
    """Return an element type in numpy's words; ``int4`` and ``uint4`` where it is narrower than a byte."""
    special = {onnx.TensorProto.INT4: "int4", onnx.TensorProto.UINT4: "uint4", onnx.TensorProto.BFLOAT16: "bfloat16"}
    return special.get(element_type) or str(helper.tensor_dtype_to_np_dtype(element_type))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim)
