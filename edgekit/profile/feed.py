"""What is fed while timing: a real sample where there is one, else generated inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError
from edgekit.records import TensorSpec
from edgekit.verify.reference import load_arrays

Array = NDArray[np.generic]


def samples_of(reference: Path, count: int) -> list[list[Array]]:
    """Read the samples of a ``reference.npz`` one by one.

    Args:
        reference: Holds ``input_<i>`` with the samples in axis 0.
        count: How many inputs the artifact takes.

    Returns:
        For each sample, each input with a batch of one.

    Raises:
        ArtifactError: The file is missing or truncated, or holds other inputs.
    """
    arrays = _inputs_of(reference, count)
    return [[array[place : place + 1] for array in arrays] for place in range(min(map(len, arrays)))]


def first_sample(reference: Path, count: int) -> list[Array]:
    """Read the first sample of a ``reference.npz``.

    Args:
        reference: Holds ``input_<i>`` with the samples in axis 0.
        count: How many inputs the artifact takes.

    Returns:
        Each input with a batch of one.

    Raises:
        ArtifactError: The file is missing or truncated, or holds other inputs.
    """
    return [array[:1] for array in _inputs_of(reference, count)]


def _inputs_of(reference: Path, count: int) -> list[Array]:
    arrays = load_arrays(reference)
    names = [f"input_{i}" for i in range(count)]
    if not all(name in arrays and len(arrays[name]) for name in names):
        raise ArtifactError(
            f"{reference}: expected {', '.join(names)} with at least one sample; received {', '.join(sorted(arrays))}"
        )
    return [arrays[name] for name in names]


def generated_inputs(specs: Sequence[TensorSpec], seed: int) -> list[Array]:
    """Make inputs: floats (for quantized tensors too) from -1 to 1, integers 0 or 1 (in any vocabulary), true flags.

    Args:
        specs: Free sizes become 1.
        seed: Makes them repeatable.
    """
    generator = np.random.default_rng(seed)
    return [_generated(spec, generator) for spec in specs]


def _generated(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape)
    # A quantized input stands for real numbers, and is fed real numbers like any other.
    dtype = np.dtype(np.float32) if spec.quantization is not None else np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.uniform(-1.0, 1.0, shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    return generator.integers(0, 2, shape).astype(dtype)
