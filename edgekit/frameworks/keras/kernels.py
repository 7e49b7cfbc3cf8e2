"""The kernels that compression works on: which variables of which layers, and which way their inputs lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.frameworks.keras.layers import own_weights, walk_layers
from edgekit.frameworks.keras.library import is_model
from edgekit.recipe.layers import LayerInfo, select_layers

__all__ = ["Kernel", "graph_layers", "holds_matrices", "kernels_of", "picked_layers", "reason_without_kernels"]

_KERNELS: Mapping[str, tuple[str, ...]] = {
    "Dense": ("kernel",),
    "Conv1D": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv3D": ("kernel",),
    "Conv1DTranspose": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3DTranspose": ("kernel",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "LSTM": ("cell.kernel", "cell.recurrent_kernel"),
    "GRU": ("cell.kernel", "cell.recurrent_kernel"),
    "SimpleRNN": ("cell.kernel", "cell.recurrent_kernel"),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A matrix or kernel of a layer.

    Attributes:
        label: Its name for people: the layer's where that has one, ``layer.kernel`` where it has several.
        variable: The variable itself.
        input_axis: The axis that inputs lie along, from the end.
    """

    label: str
    variable: Any
    input_axis: int = -2


def graph_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted name, layer)`` of the layers that a model's graph is made of, through nested models.

    Layers inside a layer (the cell of an LSTM) are not among them: nothing can be wrapped around those.
    """
    for layer in model.layers:
        path = f"{prefix}.{layer.name}" if prefix else layer.name
        if is_model(layer):
            yield from graph_layers(layer, path)
        else:
            yield path, layer


def kernels_of(path: str, layer: Any) -> list[Kernel]:
    """Return the kernels of a layer of a known kind; none of any other, or of one whose groups are single channels."""
    if is_depthwise(layer):
        return []
    names = _KERNELS.get(type(layer).__name__, ())
    found = []
    for name in names:
        part = layer
        for step in name.split("."):
            part = getattr(part, step)
        label = path if len(names) == 1 else f"{path}.{name.rpartition('.')[2]}"
        found.append(Kernel(label, part, -1 if type(layer).__name__.endswith("Transpose") else -2))
    return found


def is_depthwise(layer: Any) -> bool:
    """Say whether each channel of a convolution has a kernel of its own."""
    if type(layer).__name__.startswith("DepthwiseConv"):
        return True
    groups = getattr(layer, "groups", 1)
    return bool(groups > 1 and layer.kernel.shape[-2] == 1)


def holds_matrices(layer: Any) -> bool:
    """Say whether a layer, or a layer inside it, holds weights of rank 2 or more."""
    parts = (layer, *(part for _, part in walk_layers(layer)))
    return any(len(weight.shape) >= 2 for part in parts for weight in own_weights(part))


def reason_without_kernels(layer: Any, doing: str) -> str:
    """Say why a layer that holds matrices has none that compression works on.

    Args:
        layer: For which :func:`kernels_of` found nothing.
        doing: ``pruning`` or ``clustering``.
    """
    if is_depthwise(layer):
        # TensorFlow Model Optimization leaves them whole as well; XNNPACK's sparse kernels take 1x1 convolutions only.
        return "depthwise: few weights, each of which its channel depends on"
    if type(layer).__name__ == "Embedding":
        return "a lookup table multiplies nothing"
    return f"{doing} knows convolutions, dense and recurrent layers, not {type(layer).__name__}"


def picked_layers(model: Any, rules: Sequence[str], place: str) -> dict[str, str]:
    """Return the layers of a model that skip rules mean -> the rule.

    Raises:
        RecipeError: A rule matches no layer.
    """
    layers = [LayerInfo(path, type(layer).__name__) for path, layer in walk_layers(model)]
    return select_layers(layers, rules, place)
