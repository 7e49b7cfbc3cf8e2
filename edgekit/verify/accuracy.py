"""Task accuracy of outputs that are already computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError


def top1_accuracy(logits: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    """Share of samples whose largest logit is the label's.

    Args:
        logits: ``[N, C]`` scores; the first of equal scores counts, as on a device.
        labels: ``[N]`` class indices.

    Raises:
        DataError: Shapes do not belong together, or a label is no class.

    Example:
        >>> top1_accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
        0.5
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise DataError(
            f"expected logits [N, classes] and labels [N] with N >= 1; received {logits.shape} and {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataError(f"expected labels from 0 to {logits.shape[1] - 1}; received {labels.min()} to {labels.max()}")
    return float(np.mean(logits.argmax(axis=1) == labels))
