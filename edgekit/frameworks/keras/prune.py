"""Magnitude pruning during training, by TensorFlow Model Optimization: ``Pruner.prepare -> hooks -> finalize``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from edgekit.frameworks.keras.fit import Hooks
from edgekit.frameworks.keras.kernels import (
    Kernel,
    graph_layers,
    holds_matrices,
    kernels_of,
    picked_layers,
    reason_without_kernels,
)
from edgekit.frameworks.keras.library import is_model
from edgekit.frameworks.keras.optimization import tfmot
from edgekit.recipe.pruning import check_prune_rule, ramp_steps
from edgekit.recipe.schema import PruneRule
from edgekit.records import SkippedLayer

__all__ = ["Pruner", "PruningReport", "prunable_kernels"]

MINIMUM_WEIGHTS = 32
"""A tensor with fewer weights is left whole: zeros in it save nothing and cost accuracy."""

SKIP_PLACE = "compress.prune.skip"

GROUP = 4
_PAIRED = (2, GROUP)
_PAIRED_RANKS = (2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningReport:
    """What pruning did: the share of zeros by layer, and the layers that it left alone."""

    sparsity: float
    sparsity_by_layer: dict[str, float]
    skipped: tuple[SkippedLayer, ...]


def prunable_kernels(model: Any, rule: PruneRule) -> tuple[dict[str, list[Kernel]], tuple[SkippedLayer, ...]]:
    """Find what a rule prunes, and name why it leaves the rest alone.

    Args:
        model: A tf_keras or keras model.
        rule: Granularity, and layers to skip.

    Returns:
        Layer path -> its kernels to prune; and each other kernel, or layer with matrices, with the reason.

    Raises:
        UnsupportedError: Channel granularity.
        RecipeError: A skip rule matches no layer, or the rule contradicts itself.
    """
    check_prune_rule(rule)
    excluded = picked_layers(model, rule.skip, SKIP_PLACE)
    kernels: dict[str, list[Kernel]] = {}
    skipped: list[SkippedLayer] = []
    for path, layer in graph_layers(model):
        found = kernels_of(path, layer)
        if not found and holds_matrices(layer):
            reason = _skipped_by(excluded.get(path)) or reason_without_kernels(layer, "pruning")
            skipped.append(SkippedLayer(name=path, type=type(layer).__name__, reason=reason))
        for kernel in found:
            reason = _skipped_by(excluded.get(path)) or _reason_to_skip(kernel, rule)
            if reason:
                skipped.append(SkippedLayer(name=kernel.label, type=type(layer).__name__, reason=reason))
            else:
                kernels.setdefault(path, []).append(kernel)
    return kernels, tuple(skipped)


def _skipped_by(rule: str | None) -> str:
    return "" if rule is None else f"skipped by the rule {rule!r}"


def _reason_to_skip(kernel: Kernel, rule: PruneRule) -> str:
    shape = tuple(kernel.variable.shape)
    size = int(np.prod(shape))
    if size < MINIMUM_WEIGHTS:
        return f"{size} weights; below {MINIMUM_WEIGHTS} zeros save nothing"
    if rule.granularity != "2:4":
        return ""
    if kernel.input_axis != -2 or len(shape) not in _PAIRED_RANKS:
        return "2:4 masks of TensorFlow Model Optimization know matrices and two-dimensional convolutions"
    if shape[kernel.input_axis] % GROUP:
        return f"2:4 needs an input dimension that is a multiple of {GROUP}; this one is {shape[kernel.input_axis]}"
    return ""


class _Ramp(tfmot.sparsity.keras.PolynomialDecay):
    """Zhu & Gupta (2017), eq. 1, which also draws masks at its very end, not only every ``frequency`` steps."""

    def _should_prune_in_step(self, step: Any, begin_step: Any, end_step: Any, frequency: Any) -> Any:
        regular = super()._should_prune_in_step(step, begin_step, end_step, frequency)
        return tf.math.logical_or(regular, tf.math.equal(step, end_step))


def _schedule(rule: PruneRule, first: int, last: int) -> Any:
    """Return the schedule, whose steps count from 1 and which draws before a step, not after it."""
    begin, end = first + 1, last + 1
    if rule.schedule == "constant" or first == last:
        return tfmot.sparsity.keras.ConstantSparsity(rule.sparsity, begin_step=begin, end_step=begin, frequency=1)
    return _Ramp(0.0, rule.sparsity, begin_step=begin, end_step=end, frequency=rule.every_steps)


class Pruner:
    """Prunes a model while it trains. Made by :meth:`prepare`.

    Args:
        model: What is trained: the model's own layers, wrapped.
        rule: The rule that is followed.
        steps: Optimizer steps of the whole training.
        kernels: What is pruned.
        skipped: What is not.
    """

    def __init__(
        self,
        model: Any,
        rule: PruneRule,
        steps: int,
        kernels: dict[str, list[Kernel]],
        skipped: tuple[SkippedLayer, ...],
    ) -> None:
        self.model = model
        self._rule = rule
        self._first, self._last = ramp_steps(rule, steps)
        self._kernels = [kernel for found in kernels.values() for kernel in found]
        self._skipped = skipped
        self._wrappers = [layer for _, layer in graph_layers(model) if _is_wrapper(layer)]
        self._reset_steps(1 if self._paired and self._first > 0 else 0)

    @classmethod
    def prepare(cls, model: Any, rule: PruneRule, steps: int) -> Pruner:
        """Wrap the layers that a rule means; nothing is zeroed yet.

        Args:
            model: A tf_keras model. Its layers become part of the wrapped one: what trains there, trains here.
            rule: What to prune, how far and when.
            steps: Optimizer steps of the whole training.

        Raises:
            UnsupportedError: Channel granularity.
            RecipeError: A skip rule matches no layer.
        """
        kernels, skipped = prunable_kernels(model, rule)
        by_layer = {id(layer): kernels[path] for path, layer in graph_layers(model) if path in kernels}
        schedule = _schedule(rule, *ramp_steps(rule, steps))
        pattern = {"sparsity_m_by_n": _PAIRED} if rule.granularity == "2:4" else {}

        def wrapped(layer: Any) -> Any:
            if is_model(layer):
                return tf_keras.models.clone_model(layer, clone_function=wrapped)
            if id(layer) not in by_layer:
                return layer
            variables = [kernel.variable for kernel in by_layer[id(layer)]]
            layer.get_prunable_weights = lambda: variables  # the registry knows Keras 3's recurrent cells only
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule, **pattern)

        return cls(tf_keras.models.clone_model(model, clone_function=wrapped), rule, steps, kernels, skipped)

    def hooks(self) -> Hooks:
        """Return what must happen during the training."""
        if not self._wrappers:
            return Hooks()
        return Hooks(callbacks=(tfmot.sparsity.keras.UpdatePruningStep(),), after_step=self._after_step)

    def finalize(self) -> PruningReport:
        """End with the sparsity that was asked for, also where training stopped before the schedule's end."""
        self._reset_steps(1 if self._paired else self._last + 1 if self._ramps else self._first + 1)
        for wrapper in self._wrappers:
            wrapper.pruning_obj.conditional_mask_update()
            wrapper.pruning_obj.weight_mask_op()
        return self.report()

    def report(self) -> PruningReport:
        """Count zeros."""
        weights = {kernel.label: kernel.variable.numpy() for kernel in self._kernels}
        zeros = {label: int((weight == 0).sum()) for label, weight in weights.items()}
        return PruningReport(
            sparsity=sum(zeros.values()) / max(sum(weight.size for weight in weights.values()), 1),
            sparsity_by_layer={label: zeros[label] / weights[label].size for label in zeros},
            skipped=self._skipped,
        )

    @property
    def _paired(self) -> bool:
        return self._rule.granularity == "2:4"

    @property
    def _ramps(self) -> bool:
        return self._rule.schedule == "polynomial" and self._first != self._last

    def _after_step(self, step: int, steps: int) -> None:  # noqa: ARG002 - the signature of Hooks.after_step
        # Masks of 2:4 are drawn once, when a wrapper's own count of steps reaches 1, whatever the schedule says.
        if self._paired and step == self._first - 1:
            self._reset_steps(0)

    def _reset_steps(self, step: int) -> None:
        for wrapper in self._wrappers:
            wrapper.pruning_step.assign(step)


def _is_wrapper(layer: Any) -> bool:
    return hasattr(layer, "pruning_obj")
