"""Divide the samples of a sample model into training, validation and test splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.data import ArraySplit, Dataset, hold_out
from edgekit.data.dataset import Array


def classification(
    inputs: Sequence[Array],
    labels: Array,
    classes: Sequence[str],
    *,
    seed: int,
    image: bool = False,
    input_names: Sequence[str] = (),
    validation_share: float = 0.1,
    test_share: float = 0.2,
) -> Dataset:
    """Divide labelled samples, the classes alike in every split.

    Args:
        inputs: One array an input, ``[N, ...]``.
        labels: Class indices ``[N]``.
        classes: Names of the classes.
        seed: Draws the splits.
        image: Whether the inputs are ``[N, C, H, W]``.
        input_names: One an input.
        validation_share: Of all samples.
        test_share: Of all samples.
    """
    labels = labels.astype(np.int64)
    everything = np.arange(len(labels), dtype=np.int64)
    rest, test = hold_out(everything, labels, test_share, seed, "test")
    train, validation = hold_out(rest, labels, validation_share / (1 - test_share), seed + 1, "validation")
    splits = [ArraySplit(tuple(array[part] for array in inputs), labels[part]) for part in (train, validation, test)]
    return Dataset(
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        classes=tuple(classes),
        layout="NCHW" if image else None,
        input_names=tuple(input_names),
    )
