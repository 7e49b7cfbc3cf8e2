"""Carry the weights of a PyTorch sample model over to its Keras twin.

The layers of a Keras sample model are named as the modules of its twin, so a layer finds its weights by its name; what
is left to do is the order of the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tf_keras
import torch
from numpy.typing import NDArray
from tf_keras import layers

from sample_models.layers_keras import Positions

Weights = Mapping[str, NDArray[Any]]
"""Parameters and moving averages of one module by their names in it."""


def carry(source: torch.nn.Module, twin: tf_keras.Model) -> None:
    """Set every weight of a Keras model, moving averages included, from the PyTorch model that it is the twin of.

    Args:
        source: From ``build(...)`` of a ``model_pytorch.py``, trained or not.
        twin: From ``build(...)`` of the ``model_keras.py`` beside it, with the same arguments.

    Raises:
        ValueError: The two are no twins: a layer has no module of its name or one of another shape, or a weight of
            the source has no layer.
    """
    waiting = {
        name: value.detach().cpu().numpy()
        for name, value in source.state_dict().items()
        if not name.endswith("num_batches_tracked")  # PyTorch's alone; no average depends on it
    }
    for layer in twin.layers:
        if not layer.weights:
            continue
        mine = {name: waiting.pop(name) for name in list(waiting) if layer.name in (name, name.rpartition(".")[0])}
        if not mine:
            raise ValueError(f"expected a module named as the layer {layer.name!r}; the source model has none")
        by_name = {name.removeprefix(layer.name).removeprefix("."): value for name, value in mine.items()}
        layer.set_weights(_CONVERSIONS[type(layer)](by_name))
    if waiting:
        raise ValueError(f"expected a layer for each weight of the source model; none takes {', '.join(waiting)}")


def _convolution(weights: Weights) -> list[NDArray[Any]]:
    """``[C_out, C_in, H, W]`` to ``[H, W, C_in, C_out]``."""
    return [weights["weight"].transpose(2, 3, 1, 0), *_bias(weights)]


def _depthwise(weights: Weights) -> list[NDArray[Any]]:
    """``[C, 1, H, W]`` to ``[H, W, C, 1]``."""
    return [weights["weight"].transpose(2, 3, 0, 1), *_bias(weights)]


def _dense(weights: Weights) -> list[NDArray[Any]]:
    """``[out, in]`` to ``[in, out]``."""
    return [weights["weight"].T, *_bias(weights)]


def _bias(weights: Weights) -> list[NDArray[Any]]:
    return [weights["bias"]] if "bias" in weights else []


def _gru(weights: Weights) -> list[NDArray[Any]]:
    """Gates reset, update, new, ``[3 * hidden, in]``, to update, reset, new, ``[in, 3 * hidden]``; biases stacked."""

    def ordered(name: str) -> NDArray[Any]:
        reset, update, new = np.split(weights[name], 3)
        return np.concatenate([update, reset, new])

    return [
        ordered("weight_ih_l0").T,
        ordered("weight_hh_l0").T,
        np.stack([ordered("bias_ih_l0"), ordered("bias_hh_l0")]),
    ]


_CONVERSIONS: Mapping[type[layers.Layer], Callable[[Weights], list[NDArray[Any]]]] = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise,
    layers.Dense: _dense,
    layers.BatchNormalization: lambda weights: [
        weights[name] for name in ("weight", "bias", "running_mean", "running_var")
    ],
    layers.LayerNormalization: lambda weights: [weights["weight"], weights["bias"]],
    layers.Embedding: lambda weights: [weights["weight"]],
    layers.GRU: _gru,
    Positions: lambda weights: [weights[""]],
}
