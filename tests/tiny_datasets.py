"""Datasets small enough to train on in a second, for every framework."""

from __future__ import annotations

import numpy as np

from edgekit.data.dataset import ArraySplit, Dataset

SAMPLES = 96
CLASSES = 3


def vectors(samples: int = SAMPLES, *, features: int = 8, seed: int = 0) -> Dataset:
    """Classes that a linear layer can tell apart."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, features)).astype(np.float32)
    y = (x @ random.normal(size=(features, CLASSES))).argmax(axis=1)
    return dataset_of(x, y)


def images(samples: int = SAMPLES, *, layout: str = "NCHW") -> Dataset:
    """8x8 images whose brightest channel is the class."""
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, CLASSES, 8, 8)).astype(np.float32)
    y = x.mean(axis=(2, 3)).argmax(axis=1)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return dataset_of(x, y, layout=layout)


def dataset_of(x: np.ndarray, y: np.ndarray, **more: object) -> Dataset:
    half = len(x) // 2
    return Dataset(
        train=ArraySplit((x,), y),
        validation=ArraySplit((x[:half],), y[:half]),
        test=ArraySplit((x[half:],), y[half:]),
        **more,  # type: ignore[arg-type]
    )
