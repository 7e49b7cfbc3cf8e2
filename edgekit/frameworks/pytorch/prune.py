"""Magnitude pruning during training: ``Pruner.prepare -> step -> finalize``, and a report.

In a training loop of one's own::

    pruner = Pruner.prepare(module, rule)
    for step in range(steps):
        ...  # forward, backward, optimizer.step()
        pruner.step(step, steps)
    report = pruner.finalize()

    keeper = MaskKeeper(prepared, zero_masks(module, rule))  # later training, such as quantization-aware
    ...  # keeper(step, steps) after each optimizer step
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.errors import ToolError
from edgekit.frameworks.pytorch.masks import GROUP, magnitude_mask, paired_mask
from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.recipe.pruning import PAIRED_SPARSITY, check_prune_rule, is_update_step, target_sparsity
from edgekit.recipe.schema import PruneRule
from edgekit.records import SkippedLayer

__all__ = [
    "MaskKeeper",
    "PrunableWeight",
    "Pruner",
    "PruningReport",
    "own_weights",
    "prunable_weights",
    "reason_of_kind",
    "zero_masks",
]

MINIMUM_WEIGHTS = 32
"""A tensor with fewer weights is left whole: zeros in it save nothing and cost accuracy."""

SKIP_PLACE = "compress.prune.skip"

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MATRICES = (nn.Linear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(frozen=True, slots=True)
class PrunableWeight:
    """A weight that a rule prunes.

    Attributes:
        layer: Dotted path of its module.
        name: Dotted path of the parameter.
        parameter: The parameter itself.
        input_dim: The dimension that inputs lie along.
    """

    layer: str
    name: str
    parameter: nn.Parameter
    input_dim: int

    @property
    def label(self) -> str:
        """Its name for people: the layer's where that has one weight, the parameter's where it may have several."""
        return self.name.removesuffix(".weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport:
    """What pruning did: the share of zeros by layer, and the layers that it left alone."""

    sparsity: float
    sparsity_by_layer: dict[str, float]
    skipped: tuple[SkippedLayer, ...]


def prunable_weights(module: nn.Module, rule: PruneRule) -> tuple[tuple[PrunableWeight, ...], tuple[SkippedLayer, ...]]:
    """Find what a rule prunes, and name why it leaves the rest alone.

    Convolutions, linear and recurrent layers and attention projections are pruned. Each layer that holds a matrix or
    kernel is in exactly one of the two results. A parameter that two layers share is pruned once.

    Args:
        module: The float model.
        rule: Granularity, and layers to skip.

    Raises:
        UnsupportedError: Channel granularity.
        RecipeError: A skip rule matches no layer, or the rule contradicts itself.
    """
    check_prune_rule(rule)
    layers = [LayerInfo(name, type(part).__name__) for name, part in module.named_modules() if name]
    excluded = select_layers(layers, rule.skip, SKIP_PLACE)
    weights: list[PrunableWeight] = []
    skipped: list[SkippedLayer] = []
    seen: set[int] = set()
    for layer, part in module.named_modules():
        found = [weight for weight in own_weights(layer, part) if id(weight.parameter) not in seen]
        seen.update(id(weight.parameter) for weight in found)
        for weight in found:
            reason = _reason_to_skip(weight, part, rule, excluded.get(layer))
            if reason is None:
                weights.append(weight)
            else:
                skipped.append(SkippedLayer(name=weight.label, type=type(part).__name__, reason=reason))
    return tuple(weights), tuple(skipped)


def own_weights(layer: str, part: nn.Module) -> Iterator[PrunableWeight]:
    """Yield the matrices and kernels that a module itself holds.

    Args:
        layer: Its dotted path; empty for the model.
        part: The module.
    """
    input_dim = 0 if isinstance(part, _TRANSPOSED) else 1
    for name, parameter in part.named_parameters(recurse=False):
        if parameter.dim() >= 2:
            yield PrunableWeight(layer, f"{layer}.{name}" if layer else name, parameter, input_dim)


def _reason_to_skip(weight: PrunableWeight, part: nn.Module, rule: PruneRule, skipped_by: str | None) -> str | None:
    if skipped_by is not None:
        return f"skipped by the rule {skipped_by!r}"
    reason = reason_of_kind(part, "pruning")
    if reason is not None:
        return reason
    if weight.parameter.numel() < MINIMUM_WEIGHTS:
        return f"{weight.parameter.numel()} weights; below {MINIMUM_WEIGHTS} zeros save nothing"
    size = weight.parameter.shape[weight.input_dim]
    if rule.granularity == "2:4" and size % GROUP:
        return f"2:4 needs an input dimension that is a multiple of {GROUP}; this one is {size}"
    return None


def reason_of_kind(part: nn.Module, doing: str) -> str | None:
    """Say why the weights of a kind of layer are left whole; None: they are not.

    Args:
        part: A layer that holds a matrix or kernel.
        doing: ``pruning`` or ``clustering``.
    """
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        return "a lookup table multiplies nothing"
    if not isinstance(part, _CONVOLUTIONS + _TRANSPOSED + _MATRICES):
        return f"{doing} knows convolutions, linear, recurrent and attention layers, not {type(part).__name__}"
    if isinstance(part, _CONVOLUTIONS) and part.groups == part.in_channels and part.groups > 1:
        # TensorFlow Model Optimization leaves them whole as well; XNNPACK's sparse kernels take 1x1 convolutions only.
        return "depthwise: few weights, each of which its channel depends on"
    return None


class MaskKeeper:
    """Keeps pruned weights at zero while a module goes on training.

    A call after each optimizer step puts back to zero what the step moved. In between, gradients see the masked
    weights, so the kept ones learn to do without the others.

    Args:
        module: Float, or a graph prepared for quantization-aware training, whose parameters keep their names.
        masks: Parameter name -> bool mask (True: kept).

    Raises:
        ToolError: The module has no such parameter, or one of another shape.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                found = list(parameters[name].shape) if name in parameters else "no such parameter"
                raise ToolError(
                    f"cannot keep the pruned weights of {name!r} at zero: expected a parameter of shape "
                    f"{list(mask.shape)}; received {found}",
                    stage="prune",
                )
        self._parameters = {name: parameters[name] for name in masks}
        self._masks = dict(masks)
        self.apply()

    def __call__(self, step: int, steps: int) -> None:  # noqa: ARG002 - the signature of run_epochs' after_step
        """Apply the masks; the arguments of ``after_step`` are not needed."""
        self.apply()

    def apply(self) -> None:
        """Set every masked weight to zero."""
        _zero(self._parameters, self._masks)


@torch.no_grad()
def _zero(parameters: Mapping[str, nn.Parameter], masks: dict[str, Tensor]) -> None:
    """Zero what the masks drop; masks follow their parameter to its device."""
    for name, mask in masks.items():
        if mask.device != parameters[name].device:
            masks[name] = mask.to(parameters[name].device)
        parameters[name].masked_fill_(~masks[name], 0.0)


class Pruner:
    """Prunes a module while it trains.

    Made by :meth:`prepare`. Masks are drawn at the steps that the rule's schedule names and hold from then on: what
    was dropped stays dropped, because a weight at zero has the least magnitude.
    """

    def __init__(self, rule: PruneRule, weights: tuple[PrunableWeight, ...], skipped: tuple[SkippedLayer, ...]) -> None:
        self._rule = rule
        self._weights = weights
        self._skipped = skipped
        self._parameters = {weight.name: weight.parameter for weight in weights}
        self._masks: dict[str, Tensor] = {}

    @classmethod
    def prepare(cls, module: nn.Module, rule: PruneRule) -> Pruner:
        """Choose the weights; nothing is zeroed yet.

        Raises:
            UnsupportedError: Channel granularity.
            RecipeError: A skip rule matches no layer.
        """
        return cls(rule, *prunable_weights(module, rule))

    def step(self, step: int, steps: int) -> None:
        """Follow the schedule after an optimizer step.

        Args:
            step: Its number, from 0.
            steps: Steps of the whole training.
        """
        if is_update_step(self._rule, step, steps):
            self._draw(target_sparsity(self._rule, step, steps))
        _zero(self._parameters, self._masks)

    def finalize(self) -> PruningReport:
        """End with the sparsity that was asked for, also where training stopped before the schedule's end."""
        self._draw(self._rule.sparsity)
        _zero(self._parameters, self._masks)
        return self.report()

    def report(self) -> PruningReport:
        """Count zeros."""
        zeros = {weight.label: int((weight.parameter == 0).sum()) for weight in self._weights}
        sizes = {weight.label: weight.parameter.numel() for weight in self._weights}
        return PruningReport(
            sparsity=sum(zeros.values()) / max(sum(sizes.values()), 1),
            sparsity_by_layer={name: zeros[name] / sizes[name] for name in zeros},
            skipped=self._skipped,
        )

    def masks(self) -> dict[str, Tensor]:
        """Return parameter name -> bool mask (True: kept), for a :class:`MaskKeeper`."""
        return {name: mask.clone() for name, mask in self._masks.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks, for a checkpoint."""
        return self.masks()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take masks back from a checkpoint."""
        self._masks = dict(state)

    def _draw(self, sparsity: float) -> None:
        for weight in self._weights:
            self._masks[weight.name] = _mask(weight, self._rule, sparsity)


def _mask(weight: PrunableWeight, rule: PruneRule, sparsity: float) -> Tensor:
    if rule.granularity == "2:4":
        return paired_mask(weight.parameter, weight.input_dim, share=sparsity / PAIRED_SPARSITY)
    return magnitude_mask(weight.parameter, sparsity)


def zero_masks(module: nn.Module, rule: PruneRule) -> dict[str, Tensor]:
    """Read the masks off a pruned module: its exact zeros, in the weights that the rule prunes.

    Args:
        module: With trained, pruned weights.
        rule: The rule they were pruned by.

    Returns:
        Parameter name -> bool mask (True: kept).
    """
    weights, _ = prunable_weights(module, rule)
    return {weight.name: weight.parameter.detach() != 0 for weight in weights}
