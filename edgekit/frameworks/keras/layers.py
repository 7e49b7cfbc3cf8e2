"""The layers of a Keras model as rules see them: nested names, containers included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgekit.program.tflite import flatbuffer
from edgekit.recipe.layers import LayerInfo

if TYPE_CHECKING:
    from edgekit.frameworks.keras.load import Source

__all__ = ["children", "own_weights", "parameter_count", "source_layers", "walk_layers"]


def source_layers(source: Source) -> tuple[LayerInfo, ...]:
    """List the layers of a source: those of a Keras model, or the operators of a ``.tflite`` file.

    A layer inside another (of a nested model, of ``Bidirectional``) is named ``outer.inner``. A SavedModel that is no
    Keras model has none.
    """
    if source.library in ("keras", "tf_keras"):
        return tuple(LayerInfo(name, type(layer).__name__) for name, layer in walk_layers(source.model))
    if source.library == "tflite" and source.path is not None:
        model = flatbuffer.read_model(source.path)
        graph = model.subgraphs[0]
        named: dict[str, LayerInfo] = {}
        for operator in graph.operators or []:
            outputs = flatbuffer.indices(operator.outputs)
            name = flatbuffer.text(graph.tensors[outputs[0]].name) if outputs else ""
            named.setdefault(name, LayerInfo(name, flatbuffer.operator_name(model, operator)))
        return tuple(named.values())
    return ()


def walk_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted name, layer)`` of every layer inside a keras or tf_keras model, outer ones first.

    Two layers of one name in the same container (the parts of a custom layer may be called alike) are told apart by a
    number: ``block.conv``, ``block.conv_2``.
    """
    seen: dict[str, int] = {}
    for layer in children(model):
        seen[layer.name] = seen.get(layer.name, 0) + 1
        name = layer.name if seen[layer.name] == 1 else f"{layer.name}_{seen[layer.name]}"
        path = f"{prefix}.{name}" if prefix else name
        yield path, layer
        yield from walk_layers(layer, path)


def children(layer: Any) -> list[Any]:
    """Return the layers directly inside a keras or tf_keras layer or model, each once, in the order of creation."""
    if hasattr(layer, "layers") and isinstance(layer.layers, list):
        found = layer.layers
    elif hasattr(layer, "_flatten_layers"):
        found = layer._flatten_layers(recursive=False, include_self=False)
    else:
        found = []
    return list({id(part): part for part in found}.values())


def own_weights(layer: Any) -> list[Any]:
    """Return the variables that belong to a layer itself, not to a layer inside it; trainable ones first.

    The lists are the layer's own records: ``weights`` changes its order with ``trainable``, and counts the layers
    inside.
    """
    if hasattr(layer, "_trainable_weights"):  # tf_keras
        return [*layer._trainable_weights, *layer._non_trainable_weights]
    return [*layer._trainable_variables, *(kept for kept in layer._non_trainable_variables if kept is not None)]


def parameter_count(model: Any) -> int:
    """Count the parameters that training may change, frozen ones included; statistics (of batch norm) are none."""
    total = 0
    for layer in {id(layer): layer for layer in (model, *(layer for _, layer in walk_layers(model)))}.values():
        trainable = getattr(layer, "_trainable_weights", None)
        variables = layer._trainable_variables if trainable is None else trainable
        total += sum(_size(variable) for variable in variables)
    return total


def _size(variable: Any) -> int:
    size = 1
    for length in variable.shape:
        size *= int(length)
    return size
