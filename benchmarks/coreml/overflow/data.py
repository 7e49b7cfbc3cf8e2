"""Scikit-learn's handwritten digits as grey values: 0 to 255, as a camera gives them, not scaled to 0 to 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.data import ArraySplit, Dataset
from sample_models.digits.data import load as load_scaled


def load(seed: int = 0) -> Dataset:
    """Load the digits: float32 ``[N, 1, 8, 8]`` from 0 to 255, and the digits as labels."""
    found = load_scaled(seed)
    splits = {name: _grey(getattr(found, name)) for name in ("train", "validation", "test")}
    return replace(found, **splits)


def _grey(split: ArraySplit) -> ArraySplit:
    (images,) = split.inputs
    return ArraySplit((np.round(images * np.float32(255)),), split.labels)
