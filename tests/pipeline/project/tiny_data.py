"""Bars at three angles, with noise."""

import numpy as np

from edgekit.data import ArraySplit, Dataset


def _split(count: int, seed: int) -> ArraySplit:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    grid = np.mgrid[-1:1:8j, -1:1:8j]
    angles = labels * np.pi / 3
    waves = np.sin(6 * (grid[0] * np.cos(angles)[:, None, None] + grid[1] * np.sin(angles)[:, None, None]))
    images = (waves + generator.normal(0, 0.3, waves.shape))[:, None].astype(np.float32)
    return ArraySplit((images,), labels.astype(np.int64))


def load(train: int = 256) -> Dataset:
    return Dataset(train=_split(train, 1), validation=_split(64, 2), test=_split(64, 3), layout="NCHW")
