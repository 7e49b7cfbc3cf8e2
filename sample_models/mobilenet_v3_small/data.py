"""Drawn shapes and textures, ten classes, at the size that is asked for."""

from __future__ import annotations

from edgekit.data import Dataset
from sample_models import drawings


def load(samples: int = 2000, size: int = 96, seed: int = 0) -> Dataset:
    """Draw images.

    Args:
        samples: Images in all splits together.
        size: Height and width; a multiple of 32, 224 as published.
        seed: Draws images and splits.

    Returns:
        Images, float32 ``[N, 3, size, size]``, values about [-1, 1].
    """
    return drawings.load(samples, size, seed)
