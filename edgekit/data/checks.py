"""Checks of a dataset before work is spent on it. Every message names the split and the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.dataset import Array, ArraySplit, Dataset, Split
from edgekit.errors import DataError

MINIMUM_SAMPLES = {"train": 2, "validation": 1, "test": 1}
LAZY_SAMPLES = 64
"""Samples of a split outside memory that are read for the checks; spread evenly, so a folder is not read twice."""

_LABEL_CHUNK = 256


def check_dataset(dataset: Dataset) -> None:
    """Refuse what would fail later, or worse, train.

    Splits in memory are checked whole; of others :data:`LAZY_SAMPLES` samples are read.

    Args:
        dataset: As loaded.

    Raises:
        DataError: Too few samples; NaN or infinite values; a dtype that is no number; shapes or dtypes that differ
            between splits; labels missing in some splits, of the wrong kind or out of range; a class without a
            training sample.
    """
    splits: dict[str, Split] = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    signature: list[tuple[tuple[int, ...], np.dtype[Any]]] | None = None
    labelled: bool | None = None
    for name, split in splits.items():
        _check_size(name, split)
        inputs, labels, indices = _sampled(split)
        for number, array in enumerate(inputs):
            _check_values(name, f"input {number}", array, indices)
        found = [(array.shape[1:], array.dtype) for array in inputs]
        if signature is not None and found != signature:
            raise DataError(
                f"split {name!r}: expected inputs like those of 'train', {_described(signature)}; "
                f"received {_described(found)}"
            )
        signature = found
        if labelled is not None and labelled != (labels is not None):
            raise DataError(f"split {name!r}: expected labels in every split or in none; 'train' differs")
        labelled = labels is not None
        if labels is not None:
            _check_labels_kind(name, dataset, labels, indices)
    _check_names(dataset, len(signature or ()))
    if labelled and dataset.task == "classification":
        _check_classes(dataset)


def check_labels(labels: Array, classes: int, split: str) -> None:
    """Check that class indices fit what the model puts out.

    Args:
        labels: Class indices ``[N]``.
        classes: Number of classes that the model distinguishes.
        split: Named in the error.

    Raises:
        DataError: A label is negative or too large.
    """
    values = labels.astype(np.int64)
    wrong = np.flatnonzero((values < 0) | (values >= classes))
    if len(wrong):
        index = int(wrong[0])
        raise DataError(
            f"split {split!r}: expected labels from 0 to {classes - 1} ({classes} classes); received {labels[index]} "
            f"at sample {index} ({len(wrong)} labels out of range)"
        )


def labels_of(split: Split) -> Array | None:
    """Return all labels of a split; without reading the samples where the split holds its labels in memory."""
    known = getattr(split, "labels", None)
    if isinstance(known, np.ndarray):
        return known
    parts = [
        split.batch(np.arange(start, min(start + _LABEL_CHUNK, len(split))))[1]
        for start in range(0, len(split), _LABEL_CHUNK)
    ]
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if found and len(found) == len(parts) else None


def spread(count: int, limit: int) -> NDArray[np.int64]:
    """Return at most ``limit`` indices, spread evenly over ``range(count)``.

    Example:
        >>> spread(10, 3).tolist()
        [0, 4, 9]
    """
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))


def _check_size(name: str, split: Split) -> None:
    if len(split) < MINIMUM_SAMPLES[name]:
        raise DataError(f"split {name!r}: expected at least {MINIMUM_SAMPLES[name]} samples; received {len(split)}")


def _sampled(split: Split) -> tuple[tuple[Array, ...], Array | None, NDArray[np.int64]]:
    if isinstance(split, ArraySplit):
        return split.inputs, split.labels, np.arange(len(split))
    indices = spread(len(split), LAZY_SAMPLES)
    inputs, labels = split.batch(indices)
    return inputs, labels, indices


def _check_values(split: str, what: str, array: Array, indices: NDArray[np.int64]) -> None:
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"split {split!r}: {what}: expected numbers (float, integer or bool); received dtype {array.dtype}"
        )
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        first = np.argwhere(~finite)[0]
        value = array[tuple(first)]
        raise DataError(
            f"split {split!r}: {what}: expected finite values; received {value} at sample {indices[first[0]]}, "
            f"position {tuple(int(axis) for axis in first[1:])} ({int((~finite).sum())} values that are not finite)"
        )


def _check_labels_kind(split: str, dataset: Dataset, labels: Array, indices: NDArray[np.int64]) -> None:
    if dataset.task == "classification" and (labels.dtype.kind not in "iu" or labels.ndim != 1):
        raise DataError(
            f"split {split!r}: expected class indices, one integer a sample; received {labels.dtype} of shape "
            f"{labels.shape}. For targets that are numbers set the task to regression."
        )
    _check_values(split, "labels", labels, indices)


def _check_names(dataset: Dataset, inputs: int) -> None:
    if dataset.input_names and len(dataset.input_names) != inputs:
        raise DataError(f"expected one name for each of {inputs} inputs; received {list(dataset.input_names)}")


def _check_classes(dataset: Dataset) -> None:
    labels = {name: labels_of(getattr(dataset, name)) for name in ("train", "validation", "test")}
    everywhere = [found for found in labels.values() if found is not None and len(found)]
    count = len(dataset.classes) or max(int(found.max()) for found in everywhere) + 1
    for name, found in labels.items():
        if found is not None:
            check_labels(found, count, name)
    train = labels["train"]
    held = np.bincount(train, minlength=count) if train is not None else np.ones(count)
    # Without names only a class that another split asks for is known to exist: label sets may have gaps.
    expected = np.arange(count) if dataset.classes else np.unique(np.concatenate(everywhere))
    empty = [int(label) for label in expected if held[label] == 0]
    if empty:
        names = [dataset.classes[label] if dataset.classes else str(label) for label in empty]
        raise DataError(f"split 'train': expected samples of every class; received none of {', '.join(names)}")


def _described(signature: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    return ", ".join(f"{dtype} {list(shape)} a sample" for shape, dtype in signature)
