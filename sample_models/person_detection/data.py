"""Drawn pictures of 96×96 pixels: a person, or something else.

A person is a head, a trunk, two arms and two legs in some pose. What is no person is, for the most part, a shape or a
texture of :mod:`sample_models.drawings`, and for the rest the parts of a person in disorder. Colours, light, sizes and
noise are the same in both classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from sample_models import drawings, splits

SIZE = 96
CLASSES = ("no person", "person")
DISORDER = 0.2
"""Share of the pictures without a person that show the parts of one."""
_LIMBS = (("arm", 0.10), ("arm", 0.10), ("leg", 0.12), ("leg", 0.12), ("trunk", 0.22))
"""Parts that are capsules, with their half width."""
_HEAD = 0.24

Pixels = NDArray[np.float32]
Joints = NDArray[np.float64]


def load(samples: int = 2000, seed: int = 0) -> Dataset:
    """Draw figures.

    Args:
        samples: Images in all splits together, half of them persons.
        seed: Draws images and splits.

    Returns:
        Images, float32 ``[N, 3, 96, 96]``, values about [-1, 1].
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(samples, dtype=np.int64) % 2
    parts = [
        drawings.compose(_masks(part, generator), generator) for part in np.array_split(labels, max(1, samples // 256))
    ]
    return splits.classification((np.concatenate(parts),), labels, CLASSES, seed=seed, image=True)


def _masks(labels: NDArray[np.int64], generator: np.random.Generator) -> Pixels:
    shapes = generator.integers(0, len(drawings.SHAPES), len(labels))
    masks = drawings.masks(shapes, SIZE, generator)
    disorder = generator.random(len(labels)) < DISORDER
    for index in np.flatnonzero((labels == 1) | disorder):
        starts, ends, head = _person(generator)
        if labels[index] == 0:
            starts, ends, head = _disordered(starts, ends, generator)
        masks[index] = _render(starts, ends, head, generator)
    return masks


def _person(generator: np.random.Generator) -> tuple[Joints, Joints, Joints]:
    """Joints of a standing or walking figure about the origin, two units high; y points down."""
    swing = generator.uniform(-0.5, 0.5, 4)
    shoulder, hip = np.array([0.0, -0.42]), np.array([0.0, 0.22])
    starts = [
        shoulder + np.array([-0.2, 0.05]),
        shoulder + np.array([0.2, 0.05]),
        hip + np.array([-0.12, 0.05]),
        hip + np.array([0.12, 0.05]),
        shoulder,
    ]
    ends = [
        starts[0] + 0.62 * np.array([-np.sin(0.35 + swing[0]), np.cos(0.35 + swing[0])]),
        starts[1] + 0.62 * np.array([np.sin(0.35 + swing[1]), np.cos(0.35 + swing[1])]),
        starts[2] + 0.75 * np.array([-np.sin(0.15 + 0.5 * swing[2]), np.cos(0.15 + 0.5 * swing[2])]),
        starts[3] + 0.75 * np.array([np.sin(0.15 + 0.5 * swing[3]), np.cos(0.15 + 0.5 * swing[3])]),
        hip,
    ]
    return np.array(starts), np.array(ends), np.array([generator.uniform(-0.06, 0.06), -0.85])


def _disordered(starts: Joints, ends: Joints, generator: np.random.Generator) -> tuple[Joints, Joints, Joints]:
    """Turn each part by any angle and put it anywhere within the figure's space."""
    middles = generator.uniform(-0.75, 0.75, (len(starts), 2))
    halves = np.hypot(*(ends - starts).T)[:, None] / 2
    angles = generator.uniform(0, np.pi, len(starts))
    reach = np.stack([np.cos(angles), np.sin(angles)], axis=1) * halves
    return middles - reach, middles + reach, generator.uniform(-0.75, 0.75, 2)


def _render(starts: Joints, ends: Joints, head: Joints, generator: np.random.Generator) -> Pixels:
    """Draw a figure at half the size and double it: the outlines are soft, and it takes a quarter of the time."""
    scale, lean = generator.uniform(0.62, 0.95), generator.uniform(-0.25, 0.25)
    shift = generator.uniform(-0.3, 0.3, 2)
    axis = np.linspace(-1.3, 1.3, SIZE // 2, dtype=np.float32)
    x, y = (axis[None, :] - shift[0]) / scale, (axis[:, None] - shift[1]) / scale
    u = (np.cos(lean) * x + np.sin(lean) * y).astype(np.float32)
    v = (np.cos(lean) * y - np.sin(lean) * x).astype(np.float32)
    inside = np.hypot(u - head[0], v - head[1]) - _HEAD
    for start, end, (_, half_width) in zip(starts, ends, _LIMBS, strict=True):
        inside = np.minimum(inside, _distance(u, v, start, end) - half_width)
    mask = 1 / (1 + np.exp(np.clip(inside * 30, -30, 30)))
    return mask.repeat(2, axis=0).repeat(2, axis=1)


def _distance(u: Joints, v: Joints, start: Joints, end: Joints) -> Joints:
    """Distance of every pixel from the line between two joints."""
    along = end - start
    share = np.clip(((u - start[0]) * along[0] + (v - start[1]) * along[1]) / (along @ along), 0, 1)
    return np.hypot(u - start[0] - share * along[0], v - start[1] - share * along[1])
