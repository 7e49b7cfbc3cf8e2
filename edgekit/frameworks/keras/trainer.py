"""The step that ``model.fit`` runs, the same for both Kerases."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
import tf_keras

from edgekit.frameworks.keras.distil import Distiller
from edgekit.frameworks.keras.evaluate import call_model
from edgekit.frameworks.keras.library import library_of
from edgekit.frameworks.keras.objective import Loss, count_correct
from edgekit.frameworks.keras.optimizer import decay_term
from edgekit.recipe.schema import TrainSection

__all__ = ["make_trainer"]


class _Objective:
    """What a step minimises. No Keras object, so that the teacher in it is not taken for a part of the model."""

    def __init__(self, loss: Loss, settings: TrainSection, distiller: Distiller | None, *, judge: bool) -> None:
        self._loss = loss
        self._settings = settings
        self._distiller = distiller
        self._judge = judge

    def losses(self, model: Any, inputs: Any, labels: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the loss to show, the loss to minimise, and the counts of this device's share of a batch."""
        outputs = call_model(model, inputs, training=True)
        loss = self._loss(outputs, labels)
        if self._distiller is not None:
            loss = self._distiller(inputs, outputs, loss)
        for penalty in model.losses:  # regularizers that the model's author wrote
            loss += tf.cast(penalty, loss.dtype)
        counts = {
            "samples": tf.shape(labels, tf.int64)[0],
            "correct": count_correct(outputs, labels) if self._judge else tf.zeros((), tf.int64),
            "judged": tf.size(labels, tf.int64) if self._judge else tf.zeros((), tf.int64),
        }
        return loss, loss + decay_term(model, self._settings), counts


def _summed(values: dict[str, Any]) -> dict[str, Any]:
    """Add up over the devices that share a batch; each then holds the same."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return {name: context.all_reduce(tf.distribute.ReduceOp.SUM, value) for name, value in values.items()}


def _replicas() -> float:
    return float(tf.distribute.get_strategy().num_replicas_in_sync)


class _KerasTrainer(keras.Model):
    def __init__(self, model: Any, objective: _Objective) -> None:
        super().__init__()
        self.inner = model
        self.objective = objective
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        return call_model(self.inner, inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        inputs, labels = data
        with tf.GradientTape() as tape:
            loss, total, counts = self.objective.losses(self.inner, inputs, labels)
            scaled = self.optimizer.scale_loss(total / _replicas())
        variables = self.inner.trainable_variables
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self.optimizer.apply_gradients(_moved(gradients, variables))
        return _summed({"loss": loss / _replicas(), **counts})


class _TfKerasTrainer(tf_keras.Model):
    def __init__(self, model: Any, objective: _Objective) -> None:
        super().__init__()
        self.inner = model
        self.objective = objective

    def call(self, inputs: Any, training: bool = False) -> Any:
        return call_model(self.inner, inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        inputs, labels = data
        scales = isinstance(self.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        with tf.GradientTape() as tape:
            loss, total, counts = self.objective.losses(self.inner, inputs, labels)
            scaled = total / _replicas()
            if scales:
                scaled = self.optimizer.get_scaled_loss(scaled)
        variables = self.inner.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if scales:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(_moved(gradients, variables))
        return _summed({"loss": loss / _replicas(), **counts})


def _moved(gradients: Any, variables: Any) -> list[tuple[Any, Any]]:
    """Leave out variables that the loss does not depend on, such as the kernels behind clustered weights."""
    return [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]


def make_trainer(model: Any, loss: Loss, settings: TrainSection, distiller: Distiller | None, *, judge: bool) -> Any:
    """Wrap a model into one whose ``fit`` minimises the recipe's loss.

    Args:
        model: A keras or tf_keras model; it is trained in place.
        loss: Against the labels.
        settings: For the weight decay.
        distiller: The teacher's term.
        judge: Whether labels are classes, so that correct answers are counted.
    """
    objective = _Objective(loss, settings, distiller, judge=judge)
    kind = _TfKerasTrainer if library_of(model) is tf_keras else _KerasTrainer
    return kind(model, objective)
