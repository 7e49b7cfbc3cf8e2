"""What training minimises and what it is judged by: losses, accuracy, and the check of labels against outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import DataError, ModelError
from edgekit.frameworks.training import LabelCheck, load_loss
from edgekit.recipe.schema import TrainSection

__all__ = ["LabelCheck", "Loss", "count_correct", "make_loss", "primary_output"]

Loss = Callable[[Any, Tensor], Tensor]
"""``(outputs, labels) -> scalar``, the mean over the batch."""


def primary_output(outputs: Any) -> Tensor:
    """Return the output that losses and accuracy look at: the first one.

    Args:
        outputs: A tensor, or a sequence or mapping of them.

    Raises:
        ModelError: There is no tensor in it.
    """
    if isinstance(outputs, Tensor):
        return outputs
    parts: Sequence[Any] = ()
    if isinstance(outputs, Mapping):
        parts = tuple(outputs.values())
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        parts = outputs
    if parts:
        return primary_output(parts[0])
    raise ModelError(
        f"expected the model to return a tensor, or a sequence or mapping of tensors; received {type(outputs).__name__}"
    )


def make_loss(settings: TrainSection) -> Loss:
    """Return the loss that the settings name.

    ``cross_entropy`` (with label smoothing) and ``mse`` read the model's first output; a loss of the user's own,
    ``package.module:callable``, receives the outputs whole.

    Raises:
        RecipeError: The name is neither, or there is no such callable.
    """
    if settings.loss == "cross_entropy":
        smoothing = settings.label_smoothing
        return lambda outputs, labels: functional.cross_entropy(
            primary_output(outputs), labels, label_smoothing=smoothing
        )
    if settings.loss == "mse":
        return _mean_squared_error
    return load_loss(settings.loss)


def _mean_squared_error(outputs: Any, labels: Tensor) -> Tensor:
    predicted = primary_output(outputs)
    if predicted.shape != labels.shape and predicted.numel() == labels.numel():
        labels = labels.reshape(predicted.shape)  # [B] targets for a [B, 1] output must not broadcast to [B, B]
    if predicted.shape != labels.shape:
        raise DataError(
            f"train.loss mse: expected targets of the output's shape {tuple(predicted.shape)}; "
            f"received {tuple(labels.shape)}"
        )
    return functional.mse_loss(predicted, labels.to(predicted.dtype))


def count_correct(outputs: Any, labels: Tensor) -> Tensor:
    """Count samples whose highest class is their label.

    Args:
        outputs: First output ``[B, C]`` (or ``[B, C, ...]`` with labels ``[B, ...]``, where elements are counted).
        labels: int64.

    Returns:
        A scalar int64 tensor on the outputs' device; reading it would wait for the device, so it is left to the caller.
    """
    return (primary_output(outputs).argmax(dim=1) == labels).sum()


def output_width(outputs: Any) -> int:
    """Return the number of classes of a model's first output ``[B, C, ...]``.

    Raises:
        ModelError: The output has no class dimension.
    """
    output = primary_output(outputs)
    if output.dim() < 2 or not output.is_floating_point():
        raise ModelError(
            "expected a floating-point output [batch, classes] to train with cross_entropy; received "
            f"{output.dtype} of shape {tuple(output.shape)}. Return the logits, or choose another train.loss."
        )
    return int(output.shape[1])


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Say whether no element of these tensors is NaN or infinite (one wait for the device in all)."""
    checked = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    return not checked or bool(torch.stack(checked).all())
