"""Weights that share a few values, by TensorFlow Model Optimization: ``Clusterer.prepare -> hooks -> finalize``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras

from edgekit.data.dataset import Array
from edgekit.errors import ToolError
from edgekit.frameworks.keras.fit import Hooks
from edgekit.frameworks.keras.folding import fold_batch_norms
from edgekit.frameworks.keras.kernels import (
    Kernel,
    graph_layers,
    holds_matrices,
    kernels_of,
    picked_layers,
    reason_without_kernels,
)
from edgekit.frameworks.keras.library import is_model
from edgekit.frameworks.keras.optimization import cluster_weights, tfmot
from edgekit.frameworks.training import check_clusters
from edgekit.recipe.schema import ClusterRule
from edgekit.records import SkippedLayer

__all__ = ["ClusterReport", "Clusterer", "clusterable_kernels"]

SKIP_PLACE = "compress.cluster.skip"
_INITS = {
    "kmeans++": tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
    "linear": tfmot.clustering.keras.CentroidInitialization.LINEAR,
    "density": tfmot.clustering.keras.CentroidInitialization.DENSITY_BASED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """What clustering did: how many values each layer's weights take, and the layers that it left alone."""

    clusters_by_layer: dict[str, int]
    skipped: tuple[SkippedLayer, ...]


def clusterable_kernels(model: Any, rule: ClusterRule) -> tuple[dict[str, list[Kernel]], tuple[SkippedLayer, ...]]:
    """Find what a rule clusters, and name why it leaves the rest alone.

    Raises:
        RecipeError: A skip rule matches no layer.
    """
    excluded = picked_layers(model, rule.skip, SKIP_PLACE)
    kernels: dict[str, list[Kernel]] = {}
    skipped: list[SkippedLayer] = []
    for path, layer in graph_layers(model):
        found = kernels_of(path, layer)
        if not found and not holds_matrices(layer):
            continue
        reason = _reason_to_skip(layer, found, rule, excluded.get(path))
        if reason:
            skipped.append(SkippedLayer(name=path, type=type(layer).__name__, reason=reason))
        else:
            kernels[path] = found
    return kernels, tuple(skipped)


def _reason_to_skip(layer: Any, kernels: list[Kernel], rule: ClusterRule, skipped_by: str | None) -> str:
    if skipped_by is not None:
        return f"skipped by the rule {skipped_by!r}"
    if not kernels:
        return reason_without_kernels(layer, "clustering")
    smallest = min(int(np.prod(kernel.variable.shape)) for kernel in kernels)
    if smallest <= rule.clusters:
        return f"{smallest} weights cannot share {rule.clusters} values"
    return ""


class Clusterer:
    """Clusters a model while it trains. Made by :meth:`prepare`.

    Args:
        model: What is trained: the model's own layers, wrapped.
        rule: The rule that is followed.
        paths: The layers that are clustered.
        skipped: Those that are not.
    """

    def __init__(self, model: Any, rule: ClusterRule, paths: set[str], skipped: tuple[SkippedLayer, ...]) -> None:
        self.model = model
        self._rule = rule
        self._paths = paths
        self._skipped = skipped

    @classmethod
    def prepare(cls, model: Any, rule: ClusterRule, *, keep_zeros: bool) -> Clusterer:
        """Fold batch norms and wrap the layers that a rule means.

        Batch norms are folded first: converters fold them later, and multiply each output channel of a kernel by a
        factor of its own, which would make as many values as channels out of every shared one.

        Args:
            model: A trained tf_keras model, which is used up: its layers become part of the wrapped one.
            rule: How many values, and which layers to leave alone.
            keep_zeros: Whether zeros of a pruned layer must stay zeros; they become one of the shared values.

        Raises:
            RecipeError: A skip rule matches no layer, or there are too few values to keep zeros among them.
        """
        check_clusters(rule, keep_zeros=keep_zeros)
        kernels, skipped = clusterable_kernels(model, rule)
        fold_batch_norms(model)
        chosen = {id(layer): kernels[path] for path, layer in graph_layers(model) if path in kernels}

        def wrapped(layer: Any) -> Any:
            if is_model(layer):
                return tf_keras.models.clone_model(layer, clone_function=wrapped)
            if id(layer) not in chosen:
                return layer
            zeros = keep_zeros and all(bool((k.variable.numpy() == 0).any()) for k in chosen[id(layer)])
            return cluster_weights(layer, rule.clusters, _INITS[rule.init], preserve_sparsity=zeros)

        return cls(tf_keras.models.clone_model(model, clone_function=wrapped), rule, set(kernels), skipped)

    def hooks(self) -> Hooks:
        """Return what must happen during the training."""
        return Hooks(sparsity=self._zero_share)

    def finalize(self) -> tuple[Any, ClusterReport]:
        """Unwrap the layers, with their shared values for weights.

        Returns:
            A model of the architecture that was wrapped, and the report.

        Raises:
            ToolError: A layer came out with more values than were asked for.
        """
        plain = tfmot.clustering.keras.strip_clustering(self.model)
        found = {
            kernel.label: len(np.unique(kernel.variable.numpy()))
            for path, layer in graph_layers(plain)
            if path in self._paths
            for kernel in kernels_of(path, layer)
        }
        for label, values in found.items():
            if values > self._rule.clusters:
                raise ToolError(
                    f"clustering of {label!r} left {values} distinct weights; expected at most {self._rule.clusters}",
                    stage="cluster",
                )
        return plain, ClusterReport(clusters_by_layer=found, skipped=self._skipped)

    def _zero_share(self) -> float:
        weights = list(self._clustered())
        total = sum(weight.size for weight in weights)
        return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0

    def _clustered(self) -> Iterator[Array]:
        for _, layer in graph_layers(self.model):
            for name, algorithm in getattr(layer, "clustering_algorithms", {}).items():
                yield algorithm.cluster_centroids.numpy()[layer.pulling_indices[name].numpy()]
