"""Learning from a teacher: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgekit.errors import ModelError
from edgekit.frameworks.keras.load import load_source
from edgekit.frameworks.keras.objective import as_logits, gives_probabilities, primary_output
from edgekit.frameworks.keras.signature import pack_inputs
from edgekit.recipe.schema import DistilRule

__all__ = ["Distiller", "distillation_loss", "load_distiller"]


def distillation_loss(student: Any, teacher: Any, temperature: float) -> Any:
    """Return how far the student's softened classes are from the teacher's.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, the mean over the batch. The factor ``T^2`` keeps the
    gradient's size independent of the temperature (section 2 of the paper), so that ``alpha`` means the same for
    every one. KL differs from the paper's cross-entropy by the teacher's entropy, which has no gradient.

    Args:
        student: Logits ``[B, C]`` or ``[B, ..., C]``.
        teacher: Logits of the same shape.
        temperature: Above 0; higher shows the student more of how the teacher ranks wrong classes.

    Example:
        >>> same = tf.constant([[1.0, 2.0]])
        >>> float(distillation_loss(same, same, 4.0))
        0.0
    """
    log_student = tf.nn.log_softmax(student / temperature)
    log_teacher = tf.nn.log_softmax(teacher / temperature)
    divergence = tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return tf.reduce_mean(divergence) * temperature**2


class Distiller:
    """A teacher and the share it has in the loss.

    Args:
        teacher: A keras or tf_keras model that takes the student's inputs and returns as many classes, as logits or
            as probabilities. It is called in evaluation mode and never trained.
        rule: Temperature and weight (``alpha``) of the teacher's term.
    """

    def __init__(self, teacher: Any, rule: DistilRule) -> None:
        self._teacher = teacher
        self._rule = rule
        self._teacher_softmax = False
        self._student_softmax = False

    def settle(self, inputs: Sequence[Any], outputs: Any) -> None:
        """Look at one batch, before training: do both models know the same classes, and which of them are logits?

        Args:
            inputs: As the student takes them.
            outputs: The student's outputs for them.

        Raises:
            ModelError: The teacher's output has another shape than the student's.
        """
        taught, learned = primary_output(self._ask(inputs)), primary_output(outputs)
        if tuple(taught.shape) != tuple(learned.shape):
            raise ModelError(
                f"compress.distil.teacher: expected logits of the student's shape {tuple(learned.shape)}; "
                f"received {tuple(taught.shape)}. Both models must have the same classes."
            )
        self._teacher_softmax, self._student_softmax = gives_probabilities(taught), gives_probabilities(learned)

    def __call__(self, inputs: Sequence[Any], outputs: Any, hard_loss: Any) -> Any:
        """Mix the labels' loss with the teacher's: ``(1 - alpha) * hard + alpha * soft``.

        Args:
            inputs: The batch, as the student received it.
            outputs: The student's outputs.
            hard_loss: The loss against the labels.
        """
        taught = as_logits(tf.stop_gradient(primary_output(self._ask(inputs))), self._teacher_softmax)
        learned = as_logits(primary_output(outputs), self._student_softmax)
        soft = distillation_loss(learned, taught, self._rule.temperature)
        return (1.0 - self._rule.alpha) * hard_loss + self._rule.alpha * soft

    def _ask(self, inputs: Sequence[Any]) -> Any:
        return self._teacher(pack_inputs(self._teacher, inputs), training=False)


def load_distiller(rule: DistilRule) -> Distiller:
    """Load the teacher that a rule names.

    Raises:
        ModelError: It cannot be loaded, or is no Keras model.
    """
    teacher = load_source(rule.teacher)
    if teacher.library not in ("keras", "tf_keras"):
        raise ModelError(
            f"compress.distil.teacher: expected a keras or tf_keras model, which can be asked for logits batch by "
            f"batch; received {rule.teacher.source!r} ({teacher.library})."
        )
    return Distiller(teacher.model, rule)
