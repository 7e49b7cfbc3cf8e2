"""Motion-like sequences: three axes of a noisy oscillator, five kinds of movement."""

from __future__ import annotations

import numpy as np

from edgekit.data import Dataset
from sample_models import splits

STEPS = 32
CLASSES = ("still", "swing", "shake", "circle", "rise")
NOISE = 0.35


def load(samples: int = 4000, seed: int = 0) -> Dataset:
    """Simulate readings of an accelerometer; each sequence has its own orientation, tempo, phase and strength.

    ``swing`` moves along one line slowly, ``shake`` fast, ``circle`` in a plane, ``rise`` speeds up from slow to fast,
    ``still`` is noise and gravity alone.

    Args:
        samples: Sequences in all splits together, the classes in equal numbers.
        seed: Draws sequences and splits.

    Returns:
        Sequences, float32 ``[N, 32, 3]``.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(samples, dtype=np.int64) % len(CLASSES)
    time = np.linspace(0, 1, STEPS)[None, :]
    slow = generator.uniform(1.5, 3, (samples, 1))
    fast = generator.uniform(5, 8, (samples, 1))
    phase = generator.uniform(0, 2 * np.pi, (samples, 1))
    cycles = np.select(
        [np.isin(labels, (1, 3))[:, None], (labels == 2)[:, None], (labels == 4)[:, None]],
        [slow * time, fast * time, slow * time + (fast - slow) * time**2 / 2],
        0.0,
    )
    strength = generator.uniform(0.7, 1.5, (samples, 1)) * (labels != 0)[:, None]
    along = strength * np.sin(2 * np.pi * cycles + phase)
    across = strength * np.cos(2 * np.pi * cycles + phase) * (labels == 3)[:, None]
    # Orientation: two orthogonal directions of movement, and gravity, all random.
    axes = np.linalg.qr(generator.standard_normal((samples, 3, 3)))[0]
    gravity = generator.standard_normal((samples, 1, 3))
    gravity /= np.linalg.norm(gravity, axis=2, keepdims=True)
    motion = along[:, :, None] * axes[:, None, 0] + across[:, :, None] * axes[:, None, 1]
    sequences = motion + gravity + NOISE * generator.standard_normal((samples, STEPS, 3))
    return splits.classification((sequences.astype(np.float32),), labels, CLASSES, seed=seed)
