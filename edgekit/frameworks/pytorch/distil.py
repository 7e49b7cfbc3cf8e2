"""Learning from a teacher: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.errors import ModelError
from edgekit.frameworks.pytorch.objective import primary_output
from edgekit.recipe.schema import DistilRule

__all__ = ["Distiller", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return how far the student's softened classes are from the teacher's.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, the mean over the batch. The factor ``T^2`` keeps the
    gradient's size independent of the temperature (section 2 of the paper), so that ``alpha`` means the same for
    every one. KL differs from the paper's cross-entropy by the teacher's entropy, which has no gradient.

    Args:
        student: Logits ``[B, C]`` or ``[B, C, ...]``.
        teacher: Logits of the same shape.
        temperature: Above 0; higher shows the student more of how the teacher ranks wrong classes.

    Example:
        >>> same = torch.tensor([[1.0, 2.0]])
        >>> float(distillation_loss(same, same, 4.0))
        0.0
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence.mean() * temperature**2


class Distiller:
    """A teacher and the share it has in the loss.

    Args:
        teacher: Takes the student's inputs and returns logits of the same shape. It is put into evaluation mode and
            never trained.
        rule: Temperature and weight (``alpha``) of the teacher's term.
    """

    def __init__(self, teacher: nn.Module, rule: DistilRule) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._rule = rule

    def to(self, device: torch.device) -> None:
        """Move the teacher to where the student trains."""
        self._teacher.to(device)

    def __call__(self, inputs: tuple[Tensor, ...], outputs: Any, hard_loss: Tensor) -> Tensor:
        """Mix the labels' loss with the teacher's: ``(1 - alpha) * hard + alpha * soft``.

        Args:
            inputs: The batch, as the student received it.
            outputs: The student's outputs.
            hard_loss: The loss against the labels.

        Raises:
            ModelError: The teacher's output has another shape than the student's.
        """
        with torch.no_grad():
            taught = primary_output(self._teacher(*inputs))
        learned = primary_output(outputs)
        if taught.shape != learned.shape:
            raise ModelError(
                f"compress.distil.teacher: expected logits of the student's shape {tuple(learned.shape)}; "
                f"received {tuple(taught.shape)}. Both models must have the same classes."
            )
        soft = distillation_loss(learned.float(), taught.float(), self._rule.temperature)
        return (1.0 - self._rule.alpha) * hard_loss + self._rule.alpha * soft
