"""Drawn images: ten classes of shapes and textures, for models that need pictures and have no data set at hand.

Every image has its own colours, position, size, angle, lighting and noise, so that a network has to learn the shape.
Deterministic: the same arguments give the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from sample_models import splits

Pixels = NDArray[np.float32]
NOISE = 0.1
CONTRAST = (0.5, 1.0)
"""How much lighter than the background a shape is: least and most."""
TINT = 0.25
"""How far a channel may lie from grey, in the background and in the shape."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Coordinates of every pixel of every image, turned and scaled: ``[N, H, W]`` each, about [-1.5, 1.5]."""

    u: Pixels
    v: Pixels

    @property
    def radius(self) -> Pixels:
        """Distance from the middle of the shape."""
        return np.hypot(self.u, self.v)


def _stripes(grid: Grid) -> Pixels:
    return np.sin(grid.u * 9)


def _checkers(grid: Grid) -> Pixels:
    return np.sin(grid.u * 6) * np.sin(grid.v * 6) * 2


def _dots(grid: Grid) -> Pixels:
    return np.cos(grid.u * 8) + np.cos(grid.v * 8) - 0.9


def _rings(grid: Grid) -> Pixels:
    return np.sin(grid.radius * 9)


def _triangle(grid: Grid) -> Pixels:
    return np.minimum(grid.v + 0.5, 1 - grid.v - 1.9 * np.abs(grid.u)) * 3


def _cross(grid: Grid) -> Pixels:
    return np.minimum(0.24 - np.minimum(np.abs(grid.u), np.abs(grid.v)), 0.85 - grid.radius) * 6


def _moon(grid: Grid) -> Pixels:
    return np.minimum(0.8 - grid.radius, np.hypot(grid.u - 0.4, grid.v) - 0.6) * 6


SHAPES: dict[str, Callable[[Grid], Pixels]] = {
    "disc": lambda grid: (0.7 - grid.radius) * 4,
    "ring": lambda grid: (0.22 - np.abs(grid.radius - 0.6)) * 6,
    "square": lambda grid: (0.62 - np.maximum(np.abs(grid.u), np.abs(grid.v))) * 4,
    "triangle": _triangle,
    "cross": _cross,
    "moon": _moon,
    "stripes": _stripes,
    "checkers": _checkers,
    "dots": _dots,
    "rings": _rings,
}
"""Class -> height of the shape, positive inside, for every pixel."""


def masks(labels: NDArray[np.int64], size: int, generator: np.random.Generator) -> Pixels:
    """Draw one outline a label.

    Args:
        labels: Indices into :data:`SHAPES`, ``[N]``.
        size: Height and width in pixels.
        generator: Draws position, size and angle.

    Returns:
        Masks ``[N, size, size]``: 1 inside, 0 outside.
    """
    count = len(labels)
    axis = np.linspace(-1.5, 1.5, size, dtype=np.float32)
    angle = generator.uniform(-0.5, 0.5, (count, 1, 1)).astype(np.float32)
    scale = generator.uniform(0.8, 1.35, (count, 1, 1)).astype(np.float32)
    shift = generator.uniform(-0.35, 0.35, (2, count, 1, 1)).astype(np.float32)
    x, y = axis[None, None, :] - shift[0], axis[None, :, None] - shift[1]
    grid = Grid(
        (np.cos(angle) * x + np.sin(angle) * y) * scale,
        (np.cos(angle) * y - np.sin(angle) * x) * scale,
    )
    mask = np.empty((count, size, size), dtype=np.float32)
    for index, height in enumerate(SHAPES.values()):
        chosen = labels == index
        mask[chosen] = 1 / (1 + np.exp(-6 * np.clip(height(Grid(grid.u[chosen], grid.v[chosen])), -4, 4)))
    return mask


def compose(mask: Pixels, generator: np.random.Generator) -> Pixels:
    """Colour masks: a darker and a lighter colour an image, light from one side, noise.

    Args:
        mask: ``[N, H, W]`` in [0, 1].
        generator: Draws colours, light and noise.

    Returns:
        Images ``[N, 3, H, W]``, values about [-1, 1].
    """
    count, height, width = mask.shape
    back = generator.uniform(-0.9, 0.0, (count, 1, 1, 1)) + generator.uniform(-TINT, TINT, (count, 3, 1, 1))
    front = back + generator.uniform(*CONTRAST, (count, 1, 1, 1)) + generator.uniform(-TINT, TINT, (count, 3, 1, 1))
    back, front = back.astype(np.float32), front.astype(np.float32)
    slope = generator.uniform(-0.25, 0.25, (2, count, 1, 1)).astype(np.float32)
    light = slope[0] * np.linspace(-1, 1, width, dtype=np.float32) + slope[1] * np.linspace(
        -1, 1, height, dtype=np.float32
    ).reshape(-1, 1)
    images = back + (front - back) * mask[:, None] + light[:, None]
    # One strip of noise, read from another place for each image: drawing it anew would take longer than all the rest.
    length = images[0].size
    strip = NOISE * generator.standard_normal(4 * length, dtype=np.float32)
    for image, start in zip(images, generator.integers(0, 3 * length, count), strict=True):
        image += strip[start : start + length].reshape(image.shape)
    return images


def load(samples: int, size: int, seed: int) -> Dataset:
    """Draw a data set, divided 70 : 10 : 20.

    Args:
        samples: Images in all splits together, the classes in equal numbers.
        size: Height and width in pixels.
        seed: Draws images and splits.

    Returns:
        Images, float32 ``[N, 3, size, size]``, and the names of :data:`SHAPES` as classes.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(samples, dtype=np.int64) % len(SHAPES)
    # In parts: the coordinates of all images at once would need several times the memory of the images.
    parts = np.array_split(labels, max(1, samples // 256))
    images = np.concatenate([compose(masks(part, size, generator), generator) for part in parts])
    return splits.classification((images,), labels, tuple(SHAPES), seed=seed, image=True)
