"""Data: datasets, their sources, checks before work is spent on them, and calibration samples."""

from __future__ import annotations

from edgekit.data.dataset import ArraySplit, Dataset, Split, Task, batches

__all__ = ["ArraySplit", "Dataset", "Split", "Task", "batches"]
