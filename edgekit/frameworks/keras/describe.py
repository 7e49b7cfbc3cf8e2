"""What a Keras source takes and returns: names, shapes, dtypes, size, digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.data.dataset import Array, Dataset
from edgekit.data.sources import load_dataset
from edgekit.errors import DataError
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.frameworks.keras.layers import parameter_count, source_layers
from edgekit.frameworks.keras.load import Source, load_source
from edgekit.frameworks.keras.runner import input_specs, output_specs, run_source
from edgekit.frameworks.keras.weights_file import weight_arrays
from edgekit.frameworks.requests import ModelRequest
from edgekit.program.tflite import flatbuffer
from edgekit.recipe.layers import select_layers
from edgekit.records import SourceModel, TensorSpec

__all__ = ["describe", "describe_source", "sample_inputs"]

_GENERATED_SIZES = {4: 64}
"""Size to generate for a free dimension, by rank: images are larger than sequences. 8 for the other ranks."""


def describe(request: ModelRequest) -> SourceModel:
    """Load a model and say what it is: before any training.

    Raises:
        ModelError: It cannot be loaded.
        DataError: It cannot take the data's samples.
        RecipeError: A layer rule of the request matches no layer.
        ToolError: A ``.tflite`` source that LiteRT cannot run.
        UnsupportedError: Layers that quantization-aware training cannot handle, where the recipe wants that refused.
    """
    source = load_source(request.model)
    for place, rules in request.rules.items():
        select_layers(source_layers(source), rules, place)
    refusing = [rule for rule in request.quantize if rule.mode == "qat" and rule.unsupported == "refuse"]
    if refusing:
        from edgekit.frameworks.keras.quantize import refuse_unsupported_layers  # slow to import, seldom needed

        for rule in refusing:
            refuse_unsupported_layers(source.model, rule)
    dataset = None if request.data is None else load_dataset(request.data)
    return describe_source(source, dataset, name=request.model.source)


def describe_source(source: Source, dataset: Dataset | None, *, name: str) -> SourceModel:
    """Describe a loaded model; see :func:`describe`.

    Args:
        source: The model.
        dataset: Where free sizes of the inputs come from; None: the source's own example inputs, or generated ones.
        name: As the user wrote it.
    """
    inputs = sample_inputs(source, dataset)
    outputs = run_source(source, inputs)
    arrays = _constants(source)
    return SourceModel(
        framework="keras",
        source=name,
        digest=_digest(source, arrays),
        parameters=_parameters(source, arrays),
        size_bytes=sum(array.nbytes for array in arrays.values()),
        inputs=tuple(
            replace(spec, name=given, shape=array.shape, layout=_layout(array, dataset))
            for spec, given, array in zip(input_specs(source), _names(source, dataset), inputs, strict=True)
        ),
        outputs=tuple(
            TensorSpec(name=spec.name, dtype=str(array.dtype), shape=array.shape, quantization=spec.quantization)
            for spec, array in zip(output_specs(source), outputs, strict=True)
        ),
        layers=tuple((layer.name, layer.type) for layer in source_layers(source)),
    )


def sample_inputs(source: Source, dataset: Dataset | None) -> tuple[Array, ...]:
    """Return inputs of batch 1 as the model takes them: the data's first test sample, an example, or generated ones.

    Raises:
        DataError: The data do not fit the model.
    """
    specs = input_specs(source)
    if dataset is not None:
        return as_arrays(dataset.sample(), dataset.layout, specs)
    if source.example_inputs:
        return as_arrays([array[:1] for array in source.example_inputs], None, specs)
    return tuple(_generated(spec) for spec in specs)


def _generated(spec: TensorSpec) -> Array:
    """Zeros, which every dtype and every embedding table holds."""
    free = _GENERATED_SIZES.get(len(spec.shape), 8)
    return np.zeros([free if size is None else size for size in spec.shape], np.dtype(spec.dtype))


def _names(source: Source, dataset: Dataset | None) -> tuple[str, ...]:
    own = tuple(spec.name for spec in input_specs(source))
    if dataset is None or not dataset.input_names:
        return own
    if len(dataset.input_names) != len(own):
        raise DataError(f"the model takes {len(own)} inputs ({', '.join(own)}); the data name {dataset.input_names}")
    return dataset.input_names


def _layout(array: Array, dataset: Dataset | None) -> str | None:
    return "NHWC" if dataset is not None and dataset.layout is not None and array.ndim == 4 else None


def _constants(source: Source) -> dict[str, Array]:
    """Return what the model has learned: weights by key, or the constants of a file."""
    if source.library in ("keras", "tf_keras"):
        return weight_arrays(source.model)
    if source.library == "saved_model":
        return {str(variable.name): np.asarray(variable.numpy()) for variable in source.model.graph.variables}
    model = flatbuffer.read_model(Path(str(source.path)))
    found: dict[str, Array] = {}
    for graph_index, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors or []):
            data = flatbuffer.constant_of(model, tensor)
            if data is not None:
                found[f"{graph_index}/{index}"] = data
    return found


def _parameters(source: Source, arrays: Mapping[str, Array]) -> int:
    if source.library in ("keras", "tf_keras"):
        return parameter_count(source.model)
    if source.library == "saved_model":
        return sum(int(variable.shape.num_elements()) for variable in source.model.trainable_variables)
    graphs = flatbuffer.read_model(Path(str(source.path))).subgraphs
    shapes = {
        f"{graph_index}/{index}": flatbuffer.shape_of(tensor)
        for graph_index, graph in enumerate(graphs)
        for index, tensor in enumerate(graph.tensors or [])
        if flatbuffer.dtype_of(tensor).startswith(("float", "int8", "int4", "uint8", "bfloat"))
    }
    return sum(int(np.prod(shapes[key], dtype=np.int64)) for key in arrays if key in shapes)


def _digest(source: Source, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the weights, sorted by name; of the file for ``.tflite``."""
    if source.library == "tflite":
        return hashlib.sha256(Path(str(source.path)).read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype}:{arrays[name].shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
