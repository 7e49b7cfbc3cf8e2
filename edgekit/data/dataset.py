"""Datasets: named splits of samples, indexable, framework-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

Array = NDArray[np.generic]
Task = Literal["classification", "regression"]


class Split(Protocol):
    """Samples that are read when they are asked for."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[Array, ...], Array | None]:
        """Return the inputs (each ``[B, ...]``) and the labels (``[B, ...]`` or None) of these samples."""
        ...


@dataclass(frozen=True, slots=True)
class ArraySplit:
    """A split that lies in memory.

    Attributes:
        inputs: One array an input of the model, samples in axis 0.
        labels: Class indices (int64 ``[N]``) or regression targets; None where there are none.
    """

    inputs: tuple[Array, ...]
    labels: Array | None = None

    def __post_init__(self) -> None:
        sizes = {len(array) for array in self.inputs} | ({len(self.labels)} if self.labels is not None else set())
        if len(sizes) != 1:
            raise DataError(f"expected as many samples in every input and in the labels; received {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[Array, ...], Array | None]:
        """Return the inputs and labels of these samples."""
        picked = np.asarray(indices, dtype=np.int64)
        return tuple(array[picked] for array in self.inputs), None if self.labels is None else self.labels[picked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a data source yields.

    Attributes:
        train, validation, test: The splits. Training reads ``train``, chooses by ``validation``; verification and
            accuracy read ``test``; calibration reads ``train``.
        task: What the labels mean.
        classes: Names of the classes, in label order; empty where unknown.
        layout: ``NCHW`` or ``NHWC`` for image-like inputs, None otherwise. Frameworks convert to their own.
        input_names: One a model input; empty: the model's own names.
    """

    train: Split
    validation: Split
    test: Split
    task: Task = "classification"
    classes: tuple[str, ...] = ()
    layout: Literal["NCHW", "NHWC"] | None = None
    input_names: tuple[str, ...] = field(default=())

    def sample(self) -> tuple[Array, ...]:
        """Return the inputs of the first test sample, batch 1: the model's input signature."""
        return self.test.batch([0])[0]


def batches(
    split: Split, batch_size: int, *, shuffle: np.random.Generator | None = None, drop_last: bool = False
) -> Iterator[tuple[tuple[Array, ...], Array | None]]:
    """Walk a split in batches.

    Args:
        split: The samples.
        batch_size: Samples a batch; the last may be smaller.
        shuffle: Draws the order; None keeps it.
        drop_last: Leave a smaller last batch out.
    """
    order = np.arange(len(split)) if shuffle is None else shuffle.permutation(len(split))
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    for start in range(0, stop, batch_size):
        yield split.batch(order[start : start + batch_size])
