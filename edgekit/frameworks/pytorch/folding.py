"""Batch norms moved into the layer before them, in the module itself, without changing its architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgekit.frameworks.pytorch.capture import record
from edgekit.program.graph import argument, calls
from edgekit.program.rewrites import BATCH_NORM, CONVOLUTIONS, LINEAR, TRANSPOSED, drop_inert

__all__ = ["fold_batch_norms", "freeze_folded"]


def fold_batch_norms(module: nn.Module, example_inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Move the factor of every batch norm that follows a convolution or linear layer into that layer's weights.

    The batch norm stays in its place and adds a constant: its variance is chosen so that ``variance + epsilon`` is 1
    to the last bit, and whatever folds it again multiplies by exactly 1. The statistics of a batch would make another
    function of it: :func:`freeze_folded` keeps it as it is in later training.

    Args:
        module: Trained; changed in place, computes what it did.
        example_inputs: One batch, as the module takes it.

    Returns:
        Dotted names of the batch norms that were folded.

    Raises:
        ModelError: The module cannot be recorded.
    """
    graph = drop_inert(record(module, example_inputs))
    folded = []
    for norm in calls(graph, *BATCH_NORM):
        place = _place(graph, norm)
        if place is not None:
            layer, name = (module.get_submodule(path) for path in place)
            _fold(layer, name)
            folded.append(place[1])
    return tuple(folded)


def freeze_folded(module: nn.Module, folded: Sequence[str]) -> None:
    """Keep folded batch norms in evaluation mode, whatever mode the rest is in."""
    for name in folded:
        module.get_submodule(name).eval()


def _place(graph: GraphModule, norm: Node) -> tuple[str, str] | None:
    """Return the paths of a layer and of the batch norm behind it, where the factor of one fits into the other."""
    layer = norm.args[0]
    if not isinstance(layer, Node) or layer.target not in (*CONVOLUTIONS, *TRANSPOSED, *LINEAR):
        return None
    fits = layer.target not in LINEAR or norm.meta["val"].dim() == 2  # [N, L, C] is normalized over L, not over C
    weight, variance = _parameter(layer.args[1]), _parameter(argument(norm, 4))
    if weight is None or variance is None or not fits or len(layer.users) > 1:
        return None
    read_once = all(len(graph.graph.find_nodes(op="get_attr", target=name)) == 1 for name in (weight, variance))
    if not read_once or argument(norm, 5, False):
        return None
    return weight.rpartition(".")[0], variance.rpartition(".")[0]


def _parameter(node: object) -> str | None:
    return str(node.target) if isinstance(node, Node) and node.op == "get_attr" else None


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """``W' = W f``, ``b' = b f``, ``mean' = mean f`` with ``f = gamma / sqrt(variance + epsilon)``; the rest is 1."""
    variance: Tensor = norm.running_var  # type: ignore[assignment]
    mean: Tensor = norm.running_mean  # type: ignore[assignment]
    epsilon = float(norm.eps)  # type: ignore[arg-type]
    factor = torch.rsqrt(variance + epsilon)
    if norm.weight is not None:
        factor = factor * norm.weight  # type: ignore[operator]
        norm.weight.fill_(1.0)  # type: ignore[operator]
    weight: Tensor = layer.weight  # type: ignore[assignment]
    weight.mul_(_spread(factor, layer))
    if layer.bias is not None:
        layer.bias.mul_(factor)  # type: ignore[operator]
    mean.mul_(factor)
    variance.copy_(_variance_for_one(epsilon).expand_as(variance))


def _spread(factor: Tensor, layer: nn.Module) -> Tensor:
    """Shape a factor an output channel like the weight that it multiplies."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    behind = [1] * (weight.dim() - 2)
    if not isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return factor.reshape(-1, 1, *behind)
    # [C_in, C_out / groups, ...]: the output channels of group g lie beside its input channels
    inputs = weight.shape[0] // layer.groups
    return factor.reshape(layer.groups, -1).repeat_interleave(inputs, 0).reshape(weight.shape[0], -1, *behind)


def _variance_for_one(epsilon: float) -> Tensor:
    """Return the float32 that gives exactly 1 when ``epsilon`` is added."""
    variance = torch.tensor(1.0) - epsilon
    while float(variance + epsilon) != 1.0:
        towards = torch.tensor(2.0 if float(variance + epsilon) < 1.0 else 0.0)
        variance = torch.nextafter(variance, towards)
    return variance
