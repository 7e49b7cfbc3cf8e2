"""Weights that share a few values: ``Clusterer.prepare -> step -> report``, during training that follows the float one.

After each optimizer step every clustered weight is put back onto its layer's shared values. What the step moved is not
lost: it is added to a latent weight (Courbariaux et al., "BinaryConnect", 2015, section 2.3: the gradient of the value
that was used updates the value that is kept), each latent weight takes the nearest shared value, and each shared value
becomes the mean of those that took it: a step of k-means after a step of training, by which a shared value follows the
mean gradient of its weights (Han et al., "Deep Compression", 2016, section 3.2). The decomposition into training and
k-means is Carreira-Perpinan & Idelbayev's "Model compression as constrained optimization" (2017, section 3).

In a training loop of one's own::

    fold_batch_norms(module, example_inputs)  # later they would multiply each channel by a factor of its own
    clusterer = Clusterer.prepare(module, rule, keep_zeros=False)
    for step in range(steps):
        ...  # forward, backward, optimizer.step()
        clusterer.step(step, steps)
    report = clusterer.report()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.errors import ToolError
from edgekit.frameworks.pytorch.prune import PrunableWeight, own_weights, reason_of_kind
from edgekit.frameworks.training import check_clusters
from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.recipe.schema import ClusterRule
from edgekit.records import SkippedLayer

__all__ = ["ClusterReport", "Clusterer", "clusterable_weights"]

SKIP_PLACE = "compress.cluster.skip"
_SEED = 0
_ROUNDS = 100
_LATENT, _VALUES = "latent:", "values:"
"""What names in a checkpoint start with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """What clustering did: how many values each layer's weights take, and the layers that it left alone."""

    clusters_by_layer: dict[str, int]
    skipped: tuple[SkippedLayer, ...]


def clusterable_weights(
    module: nn.Module, rule: ClusterRule
) -> tuple[tuple[PrunableWeight, ...], tuple[SkippedLayer, ...]]:
    """Find what a rule clusters, and name why it leaves the rest alone.

    Convolutions, linear and recurrent layers and attention projections are clustered; a parameter that two layers
    share, once.

    Raises:
        RecipeError: A skip rule matches no layer.
    """
    layers = [LayerInfo(name, type(part).__name__) for name, part in module.named_modules() if name]
    excluded = select_layers(layers, rule.skip, SKIP_PLACE)
    weights: list[PrunableWeight] = []
    skipped: list[SkippedLayer] = []
    seen: set[int] = set()
    for layer, part in module.named_modules():
        for weight in own_weights(layer, part):
            if id(weight.parameter) in seen:
                continue
            seen.add(id(weight.parameter))
            reason = _reason_to_skip(weight, part, rule, excluded.get(layer))
            if reason is None:
                weights.append(weight)
            else:
                skipped.append(SkippedLayer(name=weight.label, type=type(part).__name__, reason=reason))
    return tuple(weights), tuple(skipped)


def _reason_to_skip(weight: PrunableWeight, part: nn.Module, rule: ClusterRule, skipped_by: str | None) -> str | None:
    if skipped_by is not None:
        return f"skipped by the rule {skipped_by!r}"
    reason = reason_of_kind(part, "clustering")
    if reason is None and weight.parameter.numel() <= rule.clusters:
        reason = f"{weight.parameter.numel()} weights cannot share {rule.clusters} values"
    return reason


class Clusterer:
    """Keeps weights on shared values while a module trains. Made by :meth:`prepare` or :meth:`keep`.

    Args:
        parameters: Name -> parameter, each on shared values from now on.
        values: Name -> the values that are shared, ascending.
        zeros: Name -> where weights are, and stay, zero; one of the shared values that is not in ``values``.
        labels: Name -> the layer's name for people.
        skipped: Layers that are left alone.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        values: Mapping[str, Tensor],
        zeros: Mapping[str, Tensor],
        labels: Mapping[str, str],
        skipped: tuple[SkippedLayer, ...] = (),
    ) -> None:
        self._parameters = dict(parameters)
        self._values = dict(values)
        self._zeros = dict(zeros)
        self._labels = dict(labels)
        self._skipped = skipped
        self._latent = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._used = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        for name in self._parameters:
            self._share(name)

    @classmethod
    def prepare(cls, module: nn.Module, rule: ClusterRule, *, keep_zeros: bool) -> Clusterer:
        """Choose the weights of a trained module and let them share values.

        Args:
            module: Its batch norms are folded already (:func:`~.folding.fold_batch_norms`).
            rule: How many values, where the first come from, and layers to leave alone.
            keep_zeros: Whether zeros of a pruned layer must stay zeros; they become one of the shared values.

        Raises:
            RecipeError: A skip rule matches no layer, or there are too few values to keep zeros among them.
        """
        check_clusters(rule, keep_zeros=keep_zeros)
        weights, skipped = clusterable_weights(module, rule)
        values, zeros = {}, {}
        for weight in weights:
            parameter = weight.parameter.detach()
            is_zero = parameter == 0 if keep_zeros else torch.zeros_like(parameter, dtype=torch.bool)
            count = rule.clusters - int(bool(is_zero.any()))
            zeros[weight.name] = is_zero
            values[weight.name] = _settle(parameter[~is_zero], _first_values(parameter[~is_zero], count, rule.init))
        parameters = {weight.name: weight.parameter for weight in weights}
        return cls(parameters, values, zeros, {weight.name: weight.label for weight in weights}, skipped)

    @classmethod
    def keep(cls, training: nn.Module, clustered: nn.Module, rule: ClusterRule) -> Clusterer:
        """Go on from a clustered module: its weights keep sharing as many values in later training.

        Args:
            training: What will be trained: a graph prepared for quantization-aware training, whose parameters have the
                names of the module's.
            clustered: The module that was clustered.
            rule: The rule it was clustered by.

        Raises:
            ToolError: A clustered weight is not among those that will be trained, in its shape.
        """
        weights, _ = clusterable_weights(clustered, rule)
        found = dict(training.named_parameters())
        values, zeros = {}, {}
        for weight in weights:
            parameter = found.get(weight.name)
            if parameter is None or parameter.shape != weight.parameter.shape:
                received = "none" if parameter is None else list(parameter.shape)
                raise ToolError(
                    f"cannot keep the shared values of {weight.name!r}: expected a parameter of shape "
                    f"{list(weight.parameter.shape)}; received {received}",
                    stage="cluster",
                )
            is_zero = parameter.detach() == 0
            zeros[weight.name] = is_zero
            values[weight.name] = parameter.detach()[~is_zero].unique()
        parameters = {weight.name: found[weight.name] for weight in weights}
        return cls(parameters, values, zeros, {weight.name: weight.label for weight in weights})

    def step(self, step: int, steps: int) -> None:  # noqa: ARG002 - the signature of run_epochs' after_step
        """Take what an optimizer step moved, and put the weights back onto their shared values."""
        for name, parameter in self._parameters.items():
            self._follow(name, parameter.device)
            self._latent[name] += parameter.detach() - self._used[name]
            self._share(name)

    def report(self) -> ClusterReport:
        """Count the values that each layer's weights take."""
        counted = {self._labels[name]: len(parameter.detach().unique()) for name, parameter in self._parameters.items()}
        return ClusterReport(clusters_by_layer=counted, skipped=self._skipped)

    def state_dict(self) -> dict[str, Tensor]:
        """Return latent weights and shared values, for a checkpoint."""
        latent = {_LATENT + name: tensor.clone() for name, tensor in self._latent.items()}
        return latent | {_VALUES + name: tensor.clone() for name, tensor in self._values.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back; the weights must be those of the same checkpoint."""
        for name, parameter in self._parameters.items():
            self._latent[name] = state[_LATENT + name].to(parameter.device)
            self._values[name] = state[_VALUES + name].to(parameter.device)
            self._used[name] = parameter.detach().clone()

    def _follow(self, name: str, device: torch.device) -> None:
        """Move what belongs to a parameter to its device."""
        for tensors in (self._latent, self._used, self._values, self._zeros):
            if tensors[name].device != device:
                tensors[name] = tensors[name].to(device)

    @torch.no_grad()
    def _share(self, name: str) -> None:
        latent, zeros = self._latent[name], self._zeros[name]
        latent.masked_fill_(zeros, 0.0)
        values = _means(latent[~zeros], self._values[name])
        self._values[name] = values
        shared = values[_nearest(latent, values)] if len(values) else torch.zeros_like(latent)
        self._parameters[name].copy_(shared.masked_fill(zeros, 0.0))
        self._used[name] = self._parameters[name].detach().clone()


def _nearest(weights: Tensor, values: Tensor) -> Tensor:
    """Return the place of the nearest of some ascending values, of the smaller of two as near."""
    return torch.bucketize(weights, (values[1:] + values[:-1]) / 2)


def _means(weights: Tensor, values: Tensor) -> Tensor:
    """Return the mean of the weights that are nearest to each value, ascending; a value that none is near to stays."""
    if not len(values):
        return values
    places = _nearest(weights, values)
    sums = torch.zeros(len(values), dtype=torch.float64, device=weights.device)
    held = torch.zeros_like(sums)
    sums.index_add_(0, places, weights.double())
    held.index_add_(0, places, torch.ones_like(weights, dtype=torch.float64))
    means = torch.where(held > 0, sums / held.clamp(min=1), values.double())
    return means.to(values.dtype).sort().values


def _settle(weights: Tensor, values: Tensor) -> Tensor:
    """Iterate k-means of the weights to its end (Lloyd 1982)."""
    for _ in range(_ROUNDS):
        means = _means(weights, values)
        if torch.equal(means, values):
            break
        values = means
    return values


def _first_values(weights: Tensor, count: int, init: str) -> Tensor:
    """Choose values to begin with, ascending.

    Args:
        weights: Flat; at least one.
        count: At most so many values.
        init: ``kmeans++`` (Arthur & Vassilvitskii 2007, with a fixed seed), ``linear`` over the weights' range, or
            ``density``: as many weights between two values everywhere.
    """
    values: Tensor = torch.unique(weights)
    if len(values) <= count:
        return values
    if init == "linear":
        share = torch.linspace(0, 1, count, device=weights.device, dtype=weights.dtype)
        values = values[0] + (values[-1] - values[0]) * share
    elif init == "density":
        places = (torch.arange(count) + 0.5) / count * len(weights)
        values = torch.unique(weights.sort().values[places.long().to(weights.device)])
    else:
        values = _plus_plus(weights, count)
    return values


def _plus_plus(weights: Tensor, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    points = weights.detach().cpu().double()
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distance = (points - points[chosen[0]]) ** 2
    for _ in range(count - 1):
        share = distance.cumsum(0)
        drawn = torch.rand((), generator=generator, dtype=torch.float64) * share[-1]
        chosen.append(min(int(torch.searchsorted(share, drawn, right=True)), len(points) - 1))
        distance = torch.minimum(distance, (points - points[chosen[-1]]) ** 2)
    values: Tensor = torch.unique(points[chosen].to(weights))
    return values
