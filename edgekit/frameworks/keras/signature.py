"""What a Keras model takes and returns, and the inputs and states that a program cannot have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from edgekit.data.dataset import Array
from edgekit.errors import ModelError
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.layers import walk_layers
from edgekit.program.tflite import flatbuffer
from edgekit.records import TensorSpec

__all__ = [
    "flat_inputs", "flat_outputs", "input_name", "input_names", "output_names", "pack_inputs", "refuse_unsupported",
    "signature_inputs", "signature_outputs", "with_signature",
]  # fmt: skip


def is_keras3(model: Any) -> bool:
    """Tell a Keras 3 model from a tf_keras one."""
    return isinstance(model, keras.Model)


def with_signature(model: Any, example: Sequence[Array], *, name: str) -> Any:
    """Return a model that knows its inputs: itself, or a functional model around a subclassed one.

    Args:
        model: A keras or tf_keras model.
        example: Its example inputs; empty where there are none.
        name: As the user wrote it, for messages.

    Raises:
        ModelError: Nothing says what the inputs are, or the model does not take the example.
    """
    if _symbolic(model):
        return model
    library = keras if is_keras3(model) else tf_keras
    try:
        structure = _input_structure(model, example, library)
        if structure is None:
            raise ModelError(
                f"{name}: the model {model.name!r} ({type(model).__name__}) does not say what it takes. Return "
                "(model, example_inputs) from the callable, or build a functional or Sequential model with keras.Input"
            )
        return library.Model(structure, model(structure), name=f"{model.name}_program")
    except REFUSALS as error:
        raise ModelError(
            f"{name}: the model {model.name!r} cannot be called with its inputs: {_reason(error)}. Check the example "
            "inputs that the callable returns"
        ) from error


def _symbolic(model: Any) -> bool:
    return bool(getattr(model, "inputs", None)) and bool(getattr(model, "outputs", None))


def _input_structure(model: Any, example: Sequence[Array], library: Any) -> Any | None:
    if example:
        inputs = [library.Input(array.shape[1:], dtype=_keras_dtype(array)) for array in example]
        return inputs[0] if len(inputs) == 1 else inputs
    if is_keras3(model):
        shapes = getattr(model, "_build_shapes_dict", None) or {}
        shape = shapes.get("input_shape")
        if len(shapes) != 1 or not isinstance(shape, tuple) or not all(isinstance(n, int | None) for n in shape):
            return None
        return library.Input(shape[1:])
    spec = model.save_spec()
    if spec is None or spec[1] or len(spec[0]) != 1:
        return None
    return tf.nest.map_structure(lambda part: library.Input(part.shape[1:], dtype=part.dtype), spec[0][0])


def _keras_dtype(array: Array) -> str:
    return "float32" if array.dtype.kind == "f" else str(array.dtype)


def _functional(model: Any) -> Any:
    return getattr(model, "_functional", None) or model


def flat_inputs(model: Any) -> list[Any]:
    """Return the symbolic inputs, flat: dicts in the order of their sorted keys."""
    return list(model.inputs)


def flat_outputs(returned: Any, model: Any) -> list[Any]:
    """Flatten what a model returned; dicts in the order of their sorted keys, as ``model.outputs`` has them."""
    return list(keras.tree.flatten(returned) if is_keras3(model) else tf.nest.flatten(returned))


def pack_inputs(model: Any, inputs: Sequence[Any]) -> Any:
    """Put flat inputs into the structure that the model was built with: one, a list or a dict."""
    structure = _functional(model).input
    if is_keras3(model):
        return keras.tree.pack_sequence_as(structure, list(inputs))
    return tf.nest.pack_sequence_as(structure, list(inputs))


def input_names(model: Any) -> tuple[str, ...]:
    """Name a model's inputs as its input layers are called."""
    if is_keras3(model):
        return _distinct([input_name(tensor) for tensor in model.inputs])
    return _distinct(list(model.input_names))


def signature_inputs(function: Any) -> dict[str, Any]:
    """Return the inputs of a SavedModel's signature, sorted by name: the file itself keeps no order."""
    return dict(sorted(function.structured_input_signature[1].items()))


def signature_outputs(function: Any) -> dict[str, Any]:
    """Return the outputs of a SavedModel's signature, sorted by name."""
    return dict(sorted(function.structured_outputs.items()))


def input_name(tensor: Any) -> str:
    """Return the name of the layer behind a symbolic input of Keras 3: an unnamed input is only numbered itself."""
    history = getattr(tensor, "_keras_history", None)
    return str(getattr(getattr(history, "operation", None), "name", tensor.name))


def output_names(model: Any) -> tuple[str, ...]:
    """Name a model's outputs: dict keys where it returns a dict, else the layers that they come from."""
    functional = _functional(model)
    returned = functional.output
    if isinstance(returned, Mapping):
        return _distinct(_paths(returned))
    return _distinct([str(name) for name in functional.output_names])


def _paths(returned: Any, prefix: str = "") -> list[str]:
    if isinstance(returned, Mapping):
        pairs: list[tuple[Any, Any]] = sorted(returned.items())
    elif isinstance(returned, list | tuple):
        pairs = list(enumerate(returned))
    else:
        return [prefix]
    return [path for key, part in pairs for path in _paths(part, f"{prefix}_{key}" if prefix else str(key))]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number names that occur again, as tf_keras does: a layer that is called twice gives two outputs of one name."""
    found: list[str] = []
    for name in names:
        count = sum(1 for former in names[: len(found)] if former == name)
        found.append(name if count == 0 else f"{name}_{count}")
    return tuple(found)


def refuse_unsupported(library: str, model: Any, path: Path | None, *, name: str) -> None:
    """Refuse inputs that are no dense numbers, and state that is kept between calls.

    Raises:
        ModelError: Names the input or the layer.
    """
    if library == "tflite" and path is not None:
        _check_tflite(path, name)
    elif library == "saved_model":
        for key, spec in signature_inputs(model).items():
            _check_input(key, spec, name)
    else:
        for key, tensor in zip(input_names(model), flat_inputs(model), strict=True):
            _check_input(key, tensor, name)
        _check_state(model, name)


def _check_input(key: str, tensor: Any, name: str) -> None:
    spec = getattr(tensor, "type_spec", tensor)
    if isinstance(spec, tf.RaggedTensorSpec) or getattr(tensor, "ragged", False):
        raise ModelError(
            f"{name}: input {key!r} is ragged (rows of different lengths); a program takes dense tensors. Pad the rows "
            "to one length, and give the model that takes them"
        )
    if isinstance(spec, tf.SparseTensorSpec) or getattr(tensor, "sparse", False):
        raise ModelError(f"{name}: input {key!r} is sparse; a program takes dense tensors. Build it with sparse=False")
    dtype = spec.dtype.name if isinstance(spec.dtype, tf.DType) else str(spec.dtype)
    if dtype == "string":
        raise ModelError(
            f"{name}: input {key!r} takes strings; a program takes numbers. Turn text into integers before the model "
            "(TextVectorization or StringLookup belong in the data), and give the model behind them"
        )
    if dtype.startswith("complex"):
        raise ModelError(f"{name}: input {key!r} takes {dtype} numbers; a program takes real ones. Split them in two")


def _check_state(model: Any, name: str) -> None:
    for path, layer in walk_layers(model):
        inner = getattr(layer, "layers", None)
        if getattr(layer, "stateful", False) and not isinstance(inner, list):
            raise ModelError(
                f"{name}: layer {path!r} ({type(layer).__name__}) keeps its state between calls (stateful=True); a "
                "program starts afresh every time. Build it with stateful=False, or pass the state as an input and an "
                "output of the model"
            )


def _check_tflite(path: Path, name: str) -> None:
    model = flatbuffer.read_model(path)
    for spec in (*flatbuffer.model_inputs(model), *flatbuffer.model_outputs(model)):
        _check_tflite_tensor(spec, name)
    for operator in model.subgraphs[0].operators or []:
        if flatbuffer.operator_name(model, operator) == "ASSIGN_VARIABLE":
            raise ModelError(
                f"{name}: the operator ASSIGN_VARIABLE writes a variable that the model keeps between calls; a program "
                "starts afresh every time. Convert the model anew with its state as an input and an output"
            )


def _check_tflite_tensor(spec: TensorSpec, name: str) -> None:
    if spec.dtype == "str":
        raise ModelError(f"{name}: the tensor {spec.name!r} holds strings; a program takes and returns numbers")
    try:
        np.dtype(spec.dtype)
    except TypeError as error:
        raise ModelError(f"{name}: the tensor {spec.name!r} has the dtype {spec.dtype}, which cannot be fed") from error


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
