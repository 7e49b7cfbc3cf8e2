"""What training means in every framework: the order of samples, the learning rate, the labels that fit a model.

Pure functions and numpy only, so that the same recipe trains alike whichever framework carries it out.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Array, Dataset
from edgekit.errors import DataError, RecipeError
from edgekit.frameworks.requests import TrainRequest
from edgekit.recipe.schema import ClusterRule, TrainSection
from edgekit.records import EpochMetrics

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "QAT_LEARNING_RATE_SHARE",
    "BestEpoch",
    "EpochPlace",
    "Indices",
    "LabelCheck",
    "batches_of",
    "check_clusters",
    "check_train_request",
    "epoch_order",
    "fingerprint_of",
    "learning_rate",
    "load_loss",
    "seed_of",
]

Indices = NDArray[np.int64]
_Weights = TypeVar("_Weights")

QAT_LEARNING_RATE_SHARE = 0.1
"""Of the float training's learning rate, for what comes after it: the weights are trained and only have to settle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlace:
    """Where a training is. Everything counts from 0; ``steps`` are those of one epoch."""

    phase: str
    epoch: int
    epochs: int
    steps: int


@dataclass(slots=True, kw_only=True)
class BestEpoch(Generic[_Weights]):
    """The weights of the epoch that the validation split likes best, and the patience for a better one.

    Attributes:
        patience: Epochs without a better one after which training ends; None keeps nothing and never ends it.
        first: First epoch that may count, from 0: before pruning has reached its sparsity, a better accuracy is not a
            better model.
        score: Validation accuracy, or validation loss with its sign turned where there is no accuracy.
        epoch: -1 before there is one.
        weights: As the framework keeps them; None before there is one.
    """

    patience: int | None
    first: int = 0
    score: float = -math.inf
    epoch: int = -1
    weights: _Weights | None = None

    def note(self, metrics: EpochMetrics, weights: Callable[[], _Weights]) -> None:
        """Take an epoch's weights, which are asked for only then, if it is the best so far."""
        if self.patience is None or metrics.epoch < self.first:
            return
        score = metrics.validation_accuracy
        if score is None and metrics.validation_loss is not None:
            score = -metrics.validation_loss
        if score is not None and score > self.score:
            self.score, self.epoch, self.weights = score, metrics.epoch, weights()

    def is_long_ago(self, epochs: int) -> bool:
        """Whether patience has run out after so many epochs."""
        return self.patience is not None and self.epoch >= 0 and epochs - 1 - self.epoch >= self.patience

    def state(self) -> tuple[float, int, _Weights | None]:
        """Return what a checkpoint needs."""
        return self.score, self.epoch, self.weights

    def restore(self, state: tuple[float, int, _Weights | None]) -> None:
        """Take back what :meth:`state` returned."""
        self.score, self.epoch, self.weights = state


def epoch_order(samples: int, seed: int, epoch: int) -> Indices:
    """Return the order in which an epoch visits the samples: a function of the seed and the epoch alone.

    Nothing of it needs to be kept in a checkpoint, and any number of processes agree on it without speaking.
    """
    return np.random.default_rng([seed, epoch]).permutation(samples).astype(np.int64, copy=False)


def batches_of(order: Indices, batch_size: int, parts: int = 1) -> list[Indices]:
    """Cut an order into batches.

    A last batch that is not full is left out: it would weigh its samples more, and a batch of one has no batch
    statistics. Its samples are others in every epoch. A split smaller than a batch is one batch.

    Args:
        order: Sample indices of the epoch.
        batch_size: Samples a step, all devices together.
        parts: Devices that share each batch equally.

    Raises:
        DataError: There are fewer samples than devices, or the batch size is no multiple of the devices.
    """
    size = min(batch_size, len(order) - len(order) % parts)
    if size == 0 or size % parts:
        raise DataError(
            f"expected a batch that {parts} data-parallel processes can share equally; received batch_size "
            f"{batch_size} over {len(order)} training samples. Choose a batch_size that is a multiple of {parts}."
        )
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def learning_rate(settings: TrainSection, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of a step: constant, or a half cosine from ``peak`` towards 0.

    The cosine is eq. 5 of Loshchilov & Hutter, "SGDR" (2017), without restarts. A function of the
    step alone, so that a checkpoint needs no scheduler state.
    """
    if settings.schedule == "constant":
        return peak
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / max(steps, 1)))


def seed_of(seed: int, epoch: int, rank: int) -> int:
    """Return the seed of every generator for one epoch of one process.

    Dropout and augmentation then depend on the seed, the epoch and the process alone, so that a resumed training
    draws what the uninterrupted one drew.
    """
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


def load_loss(name: str) -> Callable[[Any, Any], Any]:
    """Import a loss of the user's own, ``package.module:callable``; it takes (outputs, labels) of the framework.

    Raises:
        RecipeError: The name is not of that form, or there is no such callable.
    """
    module_name, colon, attribute = name.partition(":")
    allowed = "cross_entropy, mse, or package.module:callable taking (outputs, labels) and returning a scalar"
    if not colon:
        raise RecipeError(f"train.loss: expected {allowed}; received {name!r}.")
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError as error:
        raise RecipeError(f"train.loss: {name!r} cannot be imported ({error}). Expected {allowed}.") from error
    if not callable(found):
        raise RecipeError(f"train.loss: {module_name} holds no callable {attribute!r}. Expected {allowed}.")
    loss: Callable[[Any, Any], Any] = found
    return loss


class LabelCheck:
    """Holds class labels against the width of the model's output, batch by batch, before they reach the device.

    On a GPU a label out of range ends the process in a device-side assertion that names nothing, or trains on zeros;
    here it is an error that names the split, the value and the range.

    Args:
        classes: Width of the model's output.
        split: Name of the split, for messages.
    """

    def __init__(self, classes: int, split: str) -> None:
        self._classes = classes
        self._split = split

    def __call__(self, labels: Array | None) -> None:
        """Check one batch of labels.

        Raises:
            DataError: There are none, they are no integers, or one lies outside ``0 .. classes - 1``.
        """
        where = f"{self._split} split"
        if labels is None:
            raise DataError(f"{where}: expected class labels, which training with cross_entropy needs; received none")
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{where}: expected integer class labels for cross_entropy; received {labels.dtype}. "
                "Write train.loss: mse for real targets."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self._classes:
            raise DataError(
                f"{where}: expected labels from 0 to {self._classes - 1}, because the model's output has "
                f"{self._classes} classes; received {low if low < 0 else high}. "
                "Correct the labels, or give the model as many outputs as there are classes."
            )


def check_train_request(request: TrainRequest) -> None:
    """Refuse steps that happen during training where there is none, and training on nothing.

    Raises:
        RecipeError: A section is missing; the message says which.
    """
    steps = (("prune", request.prune), ("distil", request.distil), ("cluster", request.cluster))
    for key, rule in steps:
        if rule is not None and request.train is None:
            raise RecipeError(
                f"compress.{key}: expected a `train:` section, because this step happens during training; received "
                "none. Add `train: {epochs: ...}`, or leave the step out."
            )
    if request.train is not None and request.data is None:
        raise RecipeError(
            "train: expected a `data:` section to train on; received none. Add one, or leave `train:` out."
        )


def check_clusters(rule: ClusterRule, *, keep_zeros: bool) -> None:
    """Refuse clustering that cannot keep the zeros of a pruned model.

    Raises:
        RecipeError: There are too few values to have zero among them.
    """
    if keep_zeros and rule.clusters < 3:
        raise RecipeError(
            "compress.cluster.clusters: expected at least 3 for a pruned model, one of which is zero; "
            f"received {rule.clusters}."
        )


def fingerprint_of(settings: TrainSection, plan: DataclassInstance, dataset: Dataset, weights: str) -> str:
    """Name everything that a training's result depends on, so that no other run's checkpoint is taken for its own.

    Args:
        settings: As in a recipe.
        plan: What the framework's loop is to do: epochs, rate, phase.
        dataset: Of which the numbers of samples count.
        weights: Digest of the weights that it starts from.
    """
    facts = {
        "settings": settings.model_dump(mode="json"),
        "plan": asdict(plan),
        "samples": [len(dataset.train), len(dataset.validation)],
        "weights": weights,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
