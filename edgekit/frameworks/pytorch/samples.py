"""The samples that a program is calibrated with and verified on, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from edgekit.data.calibration import CalibrationSet, sample_calibration
from edgekit.data.checks import spread
from edgekit.data.dataset import Dataset
from edgekit.frameworks.pytorch.describe import flatten_outputs, sample_inputs
from edgekit.frameworks.pytorch.feed import as_tensors
from edgekit.frameworks.pytorch.load import Source


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs as the model takes them, ``[N, ...]`` each, and their labels."""

    inputs: tuple[Tensor, ...]
    labels: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batches(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """Walk the inputs in batches; the last may be smaller."""
        for start in range(0, len(self), size):
            yield tuple(tensor[start : start + size] for tensor in self.inputs)

    def first(self, count: int) -> Samples:
        """Return the first samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples(tuple(tensor[:count] for tensor in self.inputs), labels)


def reference_samples(source: Source, dataset: Dataset | None, count: int) -> Samples:
    """Take verification samples, evenly spread over the test split; without data the source's own example.

    Raises:
        ModelError: There are neither data nor an example.
    """
    if dataset is None:
        return Samples(sample_inputs(source, None))
    inputs, labels = dataset.test.batch(spread(len(dataset.test), count))
    return Samples(as_tensors(inputs, dataset.layout), labels)


def calibration_samples(dataset: Dataset, count: int, seed: int) -> Samples:
    """Draw calibration samples from the training split."""
    return as_samples(sample_calibration(dataset, count, seed), dataset)


def as_samples(drawn: CalibrationSet, dataset: Dataset) -> Samples:
    """Turn drawn calibration samples into what the model takes."""
    return Samples(as_tensors(drawn.inputs, dataset.layout), drawn.labels)


def has_free_batch(graph: GraphModule) -> bool:
    """Whether a recorded graph takes any batch size."""
    values = [node.meta.get("val") for node in graph.graph.find_nodes(op="placeholder")]
    sizes = [value.shape[0] for value in values if isinstance(value, Tensor) and value.dim()]
    return any(isinstance(size, torch.SymInt) for size in sizes)


def run_all(run: Callable[..., Any], samples: Samples, batch: int) -> tuple[NDArray[Any], ...]:
    """Run samples and return each output for all of them, ``[N, ...]``.

    An output that has no batch axis (a scalar) is computed sample by sample and stacked.

    Args:
        run: A module or a function that takes the inputs by position.
        samples: What to run.
        batch: How many at once, where every output has a batch axis.
    """
    with torch.no_grad():
        alone = _outputs(run, samples.first(1).inputs)
        stacked = [output.dim() == 0 or output.shape[0] != 1 for output in alone]
        size = 1 if any(stacked) else batch
        parts = [_outputs(run, inputs) for inputs in samples.batches(size)]
    return tuple(
        (torch.stack(column) if pile else torch.cat(column)).numpy()
        for column, pile in zip(zip(*parts, strict=True), stacked, strict=True)
    )


def _outputs(run: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(output for _, output in flatten_outputs(run(*inputs)))
