"""Images of 32×32 pixels, ten classes: drawn shapes, or a file of labelled images such as Fashion-MNIST or CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset, read_arrays
from edgekit.errors import DataError
from sample_models import drawings, splits

SIZE = 32


def load(path: str | None = None, samples: int = 4000, seed: int = 0) -> Dataset:
    """Load labelled images, or draw them.

    Args:
        path: A ``.npz`` with ``x`` (uint8 ``[N, H, W]`` or ``[N, H, W, 3]``, at most 32×32) and ``y`` (classes 0 to 9),
            such as ``fashion_mnist_900.npz`` of the development data. None: drawn shapes and textures.
        samples: How many images to draw; a file gives all that it has.
        seed: Draws images and splits.

    Returns:
        Images, float32 ``[N, 3, 32, 32]``, values in about [-1, 1].

    Raises:
        DataError: The file is missing or holds something else.
    """
    if path is None:
        return drawings.load(samples, SIZE, seed)
    arrays = read_arrays(Path(path))
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"{path}: expected arrays x (images) and y (labels); received {', '.join(arrays)}")
    return splits.classification(
        (_as_images(arrays["x"], path),), arrays["y"], [str(label) for label in range(10)], seed=seed, image=True
    )


def _as_images(pixels: NDArray[np.generic], path: str) -> NDArray[np.float32]:
    """Centre uint8 images in 32×32 pixels of black, three channels."""
    colour = pixels[..., None] if pixels.ndim == 3 else pixels
    shape = colour.shape
    if pixels.dtype != np.uint8 or colour.ndim != 4 or max(shape[1:3]) > SIZE or shape[3] not in (1, 3):
        raise DataError(
            f"{path}: expected x as uint8 [N, H, W] or [N, H, W, 3], at most {SIZE}×{SIZE}; "
            f"received {pixels.dtype} {list(pixels.shape)}"
        )
    top, left = (SIZE - shape[1]) // 2, (SIZE - shape[2]) // 2
    images = np.zeros((shape[0], SIZE, SIZE, 3), dtype=np.float32)
    images[:, top : top + shape[1], left : left + shape[2]] = colour
    return np.ascontiguousarray((images / 127.5 - 1).transpose(0, 3, 1, 2))
