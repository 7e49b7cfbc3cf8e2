"""The samples that a program is verified on, and running a program that was read from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgekit.data.checks import spread
from edgekit.data.dataset import Array, Dataset
from edgekit.frameworks.keras.describe import sample_inputs
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.runner import input_specs

GENERATED_SAMPLES = 8
_SEED = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs as the model takes them, ``[N, ...]`` each, and their labels."""

    inputs: tuple[Array, ...]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def first(self, count: int) -> Samples:
        """Return the first samples."""
        return Samples(
            tuple(array[:count] for array in self.inputs), None if self.labels is None else self.labels[:count]
        )

    def tensors(self, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Walk the inputs in batches, as a program takes them; the last may be smaller."""
        for start in range(0, len(self), size):
            yield tuple(torch.from_numpy(np.ascontiguousarray(array[start : start + size])) for array in self.inputs)


def reference_samples(source: Source, dataset: Dataset | None, count: int) -> Samples:
    """Take verification samples, evenly spread over the test split.

    Without data the source's own example inputs are taken, or numbers of a standard normal distribution (integers and
    booleans are zeros, which every embedding table holds).

    Args:
        source: Whose inputs they are.
        dataset: Where to take them from; None: there are no data.
        count: How many, at most.

    Raises:
        DataError: The data do not fit the model.
    """
    if dataset is None:
        return Samples(_example_inputs(source))
    inputs, labels = dataset.test.batch(spread(len(dataset.test), count))
    return Samples(as_arrays(inputs, dataset.layout, input_specs(source)), labels)


def _example_inputs(source: Source) -> tuple[Array, ...]:
    if source.example_inputs:
        return as_arrays(source.example_inputs, None, input_specs(source))
    generator = np.random.default_rng(_SEED)
    arrays: list[Array] = []
    for array in sample_inputs(source, None):
        shape = (GENERATED_SAMPLES, *array.shape[1:])
        real = array.dtype.kind == "f"
        arrays.append(generator.standard_normal(shape).astype(array.dtype) if real else np.zeros(shape, array.dtype))
    return tuple(arrays)


def run_program(run: Callable[..., Any], samples: Samples, batch: int) -> tuple[Array, ...]:
    """Run samples through a program and return each output for all of them, ``[N, ...]``.

    Args:
        run: The program's graph; returns a tuple of tensors with the batch in axis 0.
        samples: What to run.
        batch: How many at once.
    """
    with torch.no_grad():
        parts = [_flat(run(*inputs)) for inputs in samples.tensors(batch)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _flat(returned: Sequence[torch.Tensor] | torch.Tensor) -> list[Array]:
    tensors = [returned] if isinstance(returned, torch.Tensor) else list(returned)
    return [tensor.numpy() for tensor in tensors]
