"""Scikit-learn's handwritten digits: 1,797 images of 8×8 pixels that come with the package, nothing is downloaded."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from edgekit.data import Dataset
from sample_models import splits


def load(seed: int = 0) -> Dataset:
    """Load the digits, divided 70 : 10 : 20 into training, validation and test images.

    Args:
        seed: Draws the splits.

    Returns:
        Images, float32 ``[N, 1, 8, 8]`` in [0, 1], and the digits as labels.
    """
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    return splits.classification((images,), digits.target, [str(digit) for digit in range(10)], seed=seed, image=True)
