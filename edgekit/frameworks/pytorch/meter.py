"""What an epoch has seen so far: loss, accuracy, rate; a non-finite loss is caught here, and progress is told."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from edgekit import process
from edgekit.errors import ToolError
from edgekit.frameworks.training import EpochPlace

__all__ = ["EpochMeter"]

EMIT_INTERVAL_S = 0.1
"""At most ten progress events a second; each waits for the device, so a GPU is not stopped at every step."""


class EpochMeter:
    """Adds up one epoch of one process.

    Args:
        place: Which epoch of what.
        device: Where sums are kept, so that adding does not wait.
        processes: Data-parallel processes, for the rate.
        silent: Emit nothing (every process but the first).
    """

    def __init__(self, place: EpochPlace, device: torch.device, *, processes: int = 1, silent: bool = False) -> None:
        self._place = place
        self._processes = processes
        self._silent = silent
        self._pending: list[Tensor] = []
        self._checked = 0
        self._samples = 0
        self._loss_sum = 0.0
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._judged = 0
        self._started = time.perf_counter()
        self._emitted = self._started

    def add(self, loss: Tensor, samples: int, correct: Tensor | None, judged: int) -> None:
        """Count one step.

        Args:
            loss: Its mean loss, a detached scalar.
            samples: Samples in this process's share of the batch.
            correct: How many of ``judged`` labels were met; None where there is no accuracy.
            judged: Labels that count (elements, for dense labels).

        Raises:
            ToolError: A loss since the last look was NaN or infinite.
        """
        self._pending.append(loss)
        self._samples += samples
        if correct is not None:
            self._correct += correct
            self._judged += judged
        done = self._checked + len(self._pending)
        if done == self._place.steps or time.perf_counter() - self._emitted >= EMIT_INTERVAL_S:
            self._flush()
            self._emit(done)

    @property
    def totals(self) -> tuple[float, int, int, int]:
        """Sum of the steps' losses, steps, correct and judged labels of this process."""
        self._flush()
        return self._loss_sum, self._checked, int(self._correct), self._judged

    @property
    def samples_per_second(self) -> float:
        """Samples of all processes together, since the epoch began."""
        return self._samples * self._processes / max(time.perf_counter() - self._started, 1e-9)

    def _flush(self) -> None:
        if not self._pending:
            return
        losses = torch.stack(self._pending).double().cpu()
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            step = self._checked + int((~finite).nonzero()[0])
            raise ToolError(
                f"the loss became {float(losses[step - self._checked])} in epoch {self._place.epoch + 1} of "
                f"{self._place.epochs}, step {step + 1} of {self._place.steps} ({self._place.phase}). "
                "Lower train.lr (a tenth is a good next try), set train.precision: fp32 to rule out 16-bit overflow, "
                "or look for a division or logarithm of zero in the model or the loss.",
                stage=self._place.phase,
            )
        self._loss_sum += float(losses.sum())
        self._checked += len(self._pending)
        self._pending.clear()

    def _emit(self, step: int) -> None:
        self._emitted = time.perf_counter()
        if self._silent:
            return
        process.emit(
            {
                "type": "progress",
                "stage": "train",
                "phase": self._place.phase,
                "epoch": self._place.epoch + 1,
                "epochs": self._place.epochs,
                "step": step,
                "steps": self._place.steps,
                "loss": self._loss_sum / max(self._checked, 1),
                "metric": int(self._correct) / self._judged if self._judged else None,
                "rate": self.samples_per_second,
            }
        )
