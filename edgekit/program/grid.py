"""Tell whether float weights lie on a symmetric quantization grid, so that quantizing them loses nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Of a step: float32 rounding of ``integer * scale`` leaves about 1e-5, weights that were never quantized 0.25."""


def on_grid(weights: NDArray[np.floating], *, axis: int, bits: int) -> bool:
    """Whether every channel's weights are integer multiples of ``max|w| / (2^(bits-1) - 1)``.

    Args:
        weights: Float weights of any shape.
        axis: The channel axis.
        bits: 8 or 4.

    Example:
        >>> on_grid(np.array([[1.0, 127.0], [0.5, 63.5]]), axis=0, bits=8)
        True
        >>> on_grid(np.array([[1.3, 127.0], [0.5, 63.5]]), axis=0, bits=8)
        False
    """
    steps = grid_steps(weights, axis=axis, bits=bits)
    return bool(np.abs(steps - np.rint(steps)).max(initial=0.0) <= TOLERANCE)


def grid_steps(weights: NDArray[np.floating], *, axis: int, bits: int) -> NDArray[np.float64]:
    """Return the weights in steps of their channel's grid (integers when they lie on it)."""
    levels = 2 ** (bits - 1) - 1
    others = tuple(dimension for dimension in range(weights.ndim) if dimension != axis % weights.ndim)
    widest = np.abs(weights.astype(np.float64)).max(axis=others, keepdims=True, initial=0.0)
    scale = np.where(widest == 0, 1.0, widest / levels)
    steps: NDArray[np.float64] = weights / scale
    return steps
