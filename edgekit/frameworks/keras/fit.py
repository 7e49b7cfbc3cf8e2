"""Training by ``model.fit``: one path for CPU and GPU, one device or several, floating point or quantization-aware.

``fit`` is called once an epoch. What lies between epochs is decided here, so that a killed run goes on at the start of
an epoch with nothing but weights, the optimizer's state and the history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.data.dataset import Array, Dataset
from edgekit.errors import DataError, ToolError
from edgekit.frameworks.keras.batches import Batches
from edgekit.frameworks.keras.checkpoint import Checkpoints
from edgekit.frameworks.keras.distil import Distiller
from edgekit.frameworks.keras.evaluate import call_model, forward_of, score
from edgekit.frameworks.keras.library import library_of
from edgekit.frameworks.keras.objective import Loss, gives_probabilities, make_loss, output_width
from edgekit.frameworks.keras.optimizer import make_optimizer, seed_epoch, use_seeded_generators
from edgekit.frameworks.keras.progress import EpochMeter
from edgekit.frameworks.keras.strategy import Placement, deterministic_operations
from edgekit.frameworks.keras.trainer import make_trainer
from edgekit.frameworks.training import (
    BestEpoch,
    EpochPlace,
    Indices,
    LabelCheck,
    batches_of,
    epoch_order,
    fingerprint_of,
    learning_rate,
)
from edgekit.recipe.schema import TrainSection
from edgekit.records import EpochMetrics, TensorSpec, from_json, to_json

__all__ = ["Hooks", "fit_epochs", "variables_digest", "zero_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What else happens during a training.

    Attributes:
        callbacks: Keras callbacks, of the model's library; passed to every ``fit``.
        after_step: Called as ``(step, steps)`` after each step, counted from 0 over the whole training.
        on_epoch_start: Called with the epoch (from 0) before it begins.
        after_epoch: Called after the steps of an epoch, before it is judged and saved.
        sparsity: Share of zeros of the model that comes out; :func:`zero_share` of the one in training unless given.
    """

    callbacks: Sequence[Any] = ()
    after_step: Callable[[int, int], None] | None = None
    on_epoch_start: Callable[[int], None] | None = None
    after_epoch: Callable[[], None] | None = None
    sparsity: Callable[[], float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    epochs: int
    lr: float
    phase: str
    best_from: int


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What changes from epoch to epoch, besides weights and optimizer."""

    best: BestEpoch[list[Array]]
    history: list[EpochMetrics] = field(default_factory=list)


def fit_epochs(
    model: Any,
    dataset: Dataset,
    settings: TrainSection,
    *,
    specs: Sequence[TensorSpec],
    placement: Placement,
    strategy: Any,
    epochs: int | None = None,
    phase: str = "train",
    lr: float | None = None,
    hooks: Hooks | None = None,
    distiller: Distiller | None = None,
    checkpoints: Checkpoints | None = None,
    best_from: int = 0,
) -> tuple[EpochMetrics, ...]:
    """Train a model in place.

    The same seed gives the same weights. The batch size counts all devices together, so their number does not change
    the result beyond rounding (except through batch norm, whose statistics are of each device's share). Killed and
    started again with the same ``checkpoints``, it ends with the weights of an uninterrupted run.

    Args:
        model: A keras or tf_keras model, wrapped by TensorFlow Model Optimization or not; its variables were made
            under ``strategy``.
        dataset: Trained on ``train``, judged on ``validation``.
        settings: As in a recipe.
        specs: The model's inputs.
        placement: Of the settings.
        strategy: Of the placement.
        epochs: Overrides ``settings.epochs``.
        phase: ``train``, ``qat`` ...; shown in progress and kept in the metrics.
        lr: Overrides ``settings.lr``.
        hooks: What else happens.
        distiller: Adds a teacher's term to the loss.
        checkpoints: Where to resume from and to save to after each epoch.
        best_from: First epoch that may count as the best, and from which ``settings.patience`` counts: before
            pruning has reached its sparsity, a better accuracy is not a better model.

    Returns:
        One record an epoch, those before a resume included.

    Raises:
        RecipeError: A loss that cannot be found.
        DataError: Labels that do not fit the model's output, or too few samples.
        ModelError: Nothing to train, or a teacher of other classes.
        ToolError: The loss became NaN or infinite.
    """
    total = settings.epochs if epochs is None else epochs
    if total == 0:
        return ()
    plan = _Plan(epochs=total, lr=settings.lr if lr is None else lr, phase=phase, best_from=best_from)
    # The library's pruning tells by the scope whether variables are mirrored, in calls outside of fit too.
    with deterministic_operations(), strategy.scope():
        run = _Run(model, dataset, settings, plan, specs, placement, hooks or Hooks(), distiller)
        return run.train(checkpoints)


def zero_share(model: Any) -> float:
    """Return the share of exact zeros in the model's matrices and kernels (trainable weights of rank 2 and more)."""
    weights = [variable.numpy() for variable in model.trainable_variables if len(variable.shape) >= 2]
    total = sum(weight.size for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def variables_digest(model: Any) -> str:
    """Return a hash of every variable of a model, in its order."""
    digest = hashlib.sha256()
    for variable in model.variables:
        array = np.asarray(variable.numpy())
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Run:
    """One call of :func:`fit_epochs`: what is set up once, and the epochs."""

    def __init__(
        self,
        model: Any,
        dataset: Dataset,
        settings: TrainSection,
        plan: _Plan,
        specs: Sequence[TensorSpec],
        placement: Placement,
        hooks: Hooks,
        distiller: Distiller | None,
    ) -> None:
        self._model = model
        self._dataset = dataset
        self._settings = settings
        self._plan = plan
        self._hooks = hooks
        self._replicas = placement.replicas
        self._judge = dataset.task == "classification"
        self._digest = variables_digest(model)
        self._steps = len(self._order(0))
        self._generators = use_seeded_generators(model)
        seed_epoch(settings.seed, 0, self._generators)
        self._optimizer = make_optimizer(
            model, settings, plan.lr, self._steps * plan.epochs, scale_loss=placement.autocast == "fp16"
        )
        self._loss = self._settle(specs, distiller)
        self._train, self._validation = self._open_batches(specs)
        self._forward = forward_of(model, specs)
        self._trainer = make_trainer(model, self._loss, settings, distiller, judge=self._judge)
        self._trainer.compile(optimizer=self._optimizer, jit_compile=placement.compile)

    def train(self, checkpoints: Checkpoints | None) -> tuple[EpochMetrics, ...]:
        """Resume, run the epochs that are left, and leave the chosen weights in the model."""
        fingerprint = fingerprint_of(self._settings, self._plan, self._dataset, self._digest)
        saved = checkpoints.load(fingerprint) if checkpoints is not None else None
        progress = _Progress(best=BestEpoch(patience=self._settings.patience, first=self._plan.best_from))
        if saved is not None:
            self._restore(progress, saved)
        while len(progress.history) < self._plan.epochs and not progress.best.is_long_ago(len(progress.history)):
            metrics = self._epoch(len(progress.history))
            progress.history.append(metrics)
            progress.best.note(metrics, lambda: _arrays(self._model.variables))
            if checkpoints is not None:
                checkpoints.save(len(progress.history), fingerprint, self._state(progress))
        if progress.best.weights is not None:
            _assign(self._model.variables, progress.best.weights)
        return tuple(progress.history)

    # What is set up once

    def _order(self, epoch: int) -> list[Indices]:
        order = epoch_order(len(self._dataset.train), self._settings.seed, epoch)
        return batches_of(order, self._settings.batch_size, self._replicas)

    def _settle(self, specs: Sequence[TensorSpec], distiller: Distiller | None) -> Loss:
        """Try loss and teacher on the first batch, where an error still has its own type and words."""
        batches = Batches(self._dataset.train, specs, layout=self._dataset.layout)
        inputs, labels = batches.read(self._order(0)[0])
        if labels is None:
            raise DataError("train split: expected labels, which training needs; received none")
        outputs = call_model(self._model, inputs)
        self._classes = output_width(outputs) if self._settings.loss == "cross_entropy" else None
        if self._classes is not None:
            LabelCheck(self._classes, "train")(labels)
        loss = make_loss(self._settings, probabilities=self._classes is not None and gives_probabilities(outputs))
        if self._settings.loss in ("cross_entropy", "mse"):  # a loss of the user's own may count its calls
            loss(outputs, tf.constant(labels))
        if distiller is not None:
            distiller.settle(inputs, outputs)
        return loss

    def _open_batches(self, specs: Sequence[TensorSpec]) -> tuple[Batches, Batches]:
        train, validation = (
            Batches(
                split,
                specs,
                layout=self._dataset.layout,
                check=None if self._classes is None else LabelCheck(self._classes, name),
            )
            for name, split in (("train", self._dataset.train), ("validation", self._dataset.validation))
        )
        return train, validation

    # One epoch

    def _epoch(self, epoch: int) -> EpochMetrics:
        seed_epoch(self._settings.seed, epoch, self._generators)
        if self._hooks.on_epoch_start is not None:
            self._hooks.on_epoch_start(epoch)
        meter = EpochMeter(EpochPlace(phase=self._plan.phase, epoch=epoch, epochs=self._plan.epochs, steps=self._steps))
        self._fit(epoch, meter)
        rate = meter.samples_per_second
        self._check_weights(epoch)
        if self._hooks.after_epoch is not None:
            self._hooks.after_epoch()
        found = score(self._forward, self._validation, self._loss, judge=self._judge)
        total = self._steps * self._plan.epochs
        return EpochMetrics(
            epoch=epoch,
            phase=self._plan.phase,
            loss=meter.loss,
            accuracy=meter.accuracy,
            validation_accuracy=found.accuracy,
            validation_loss=found.loss,
            learning_rate=learning_rate(self._settings, self._plan.lr, (epoch + 1) * self._steps - 1, total),
            sparsity=zero_share(self._model) if self._hooks.sparsity is None else self._hooks.sparsity(),
            samples_per_second=rate,
        )

    def _fit(self, epoch: int, meter: EpochMeter) -> None:
        total = self._steps * self._plan.epochs

        def count(index: int, logs: Mapping[str, Any]) -> None:
            meter.add(float(logs["loss"]), int(logs["samples"]), int(logs["correct"]), int(logs["judged"]))
            if self._hooks.after_step is not None:
                self._hooks.after_step(epoch * self._steps + index, total)

        counter = library_of(self._model).callbacks.LambdaCallback(on_train_batch_end=count)
        data = self._train.dataset(self._order(epoch))
        try:
            self._trainer.fit(data, epochs=1, shuffle=False, verbose=0, callbacks=[*self._hooks.callbacks, counter])
        except tf.errors.OpError as error:
            if self._train.failure is not None:
                raise self._train.failure from error
            raise

    def _check_weights(self, epoch: int) -> None:
        """Catch what the last step's loss cannot show, before it reaches a checkpoint."""
        if not all(np.isfinite(variable.numpy()).all() for variable in self._model.trainable_variables):
            raise ToolError(
                f"weights became NaN or infinite in epoch {epoch + 1} of {self._plan.epochs}, step {self._steps} "
                f"({self._plan.phase}). Lower train.lr (a tenth is a good next try).",
                stage=self._plan.phase,
            )

    # What is kept

    def _state(self, progress: _Progress) -> dict[str, Any]:
        return {
            "model": _arrays(self._model.variables),
            "optimizer": _arrays(self._optimizer.variables),
            "history": to_json(tuple(progress.history)),
            "best": progress.best.state(),
        }

    def _restore(self, progress: _Progress, state: Mapping[str, Any]) -> None:
        _assign(self._model.variables, state["model"])
        _assign(self._optimizer.variables, state["optimizer"])
        progress.history = [from_json(EpochMetrics, metrics) for metrics in state["history"]]
        progress.best.restore(state["best"])


def _arrays(variables: Sequence[Any]) -> list[Array]:
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: Sequence[Any], arrays: Sequence[Array]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
