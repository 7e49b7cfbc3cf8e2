"""What an epoch has seen so far: loss, accuracy, rate; a non-finite loss is caught here, and progress is told."""

from __future__ import annotations

import math
import time

from edgekit import process
from edgekit.errors import ToolError
from edgekit.frameworks.training import EpochPlace

__all__ = ["EpochMeter"]

EMIT_INTERVAL_S = 0.1
"""At most ten progress events a second."""


class EpochMeter:
    """Adds up one epoch.

    Args:
        place: Which epoch of what.
    """

    def __init__(self, place: EpochPlace) -> None:
        self._place = place
        self._steps = 0
        self._samples = 0
        self._loss_sum = 0.0
        self._correct = 0
        self._judged = 0
        self._started = time.perf_counter()
        self._emitted = self._started

    def add(self, loss: float, samples: int, correct: int, judged: int) -> None:
        """Count one step.

        Args:
            loss: Its mean loss.
            samples: Samples in the batch.
            correct: How many of ``judged`` labels were met.
            judged: Labels that count (elements, for dense labels); 0 where there is no accuracy.

        Raises:
            ToolError: The loss is NaN or infinite.
        """
        self._steps += 1
        if not math.isfinite(loss):
            raise ToolError(
                f"the loss became {loss} in epoch {self._place.epoch + 1} of {self._place.epochs}, step {self._steps} "
                f"of {self._place.steps} ({self._place.phase}). "
                "Lower train.lr (a tenth is a good next try), set train.precision: fp32 to rule out 16-bit overflow, "
                "or look for a division or logarithm of zero in the model or the loss.",
                stage=self._place.phase,
            )
        self._loss_sum += loss
        self._samples += samples
        self._correct += correct
        self._judged += judged
        if self._steps == self._place.steps or time.perf_counter() - self._emitted >= EMIT_INTERVAL_S:
            self._emit()

    @property
    def loss(self) -> float:
        """Mean of the steps' losses."""
        return self._loss_sum / max(self._steps, 1)

    @property
    def accuracy(self) -> float | None:
        """Share of labels met; None where there is no accuracy."""
        return self._correct / self._judged if self._judged else None

    @property
    def samples_per_second(self) -> float:
        """Since the epoch began."""
        return self._samples / max(time.perf_counter() - self._started, 1e-9)

    def _emit(self) -> None:
        self._emitted = time.perf_counter()
        process.emit(
            {
                "type": "progress",
                "stage": "train",
                "phase": self._place.phase,
                "epoch": self._place.epoch + 1,
                "epochs": self._place.epochs,
                "step": self._steps,
                "steps": self._place.steps,
                "loss": self.loss,
                "metric": self.accuracy,
                "rate": self.samples_per_second,
            }
        )
