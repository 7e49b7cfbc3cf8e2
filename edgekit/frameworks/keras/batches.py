"""Batches on their way to the model: which samples, in which order, laid out how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.data.dataset import Array, Split
from edgekit.errors import DataError, EdgekitError
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.frameworks.training import Indices
from edgekit.records import TensorSpec

__all__ = ["Batch", "Batches"]

Batch = tuple[tuple[Array, ...], Array | None]

PREFETCH_BATCHES = 3
"""Batches read ahead of the device, enough to hide the time of one slow read."""


class Batches:
    """Batches of one split, as a model takes them.

    Args:
        split: The samples.
        specs: The model's inputs.
        layout: The data's layout (``NCHW`` images are turned to NHWC).
        check: Called with the labels of every batch; raises when they are wrong.
    """

    def __init__(
        self,
        split: Split,
        specs: Sequence[TensorSpec],
        *,
        layout: str | None = None,
        check: Callable[[Array | None], None] | None = None,
    ) -> None:
        self._split = split
        self._specs = specs
        self._layout = layout
        self._check = check
        self.failure: EdgekitError | None = None
        """What reading raised inside :meth:`dataset`: TensorFlow passes on the words of an error, not its type."""

    def __len__(self) -> int:
        return len(self._split)

    def read(self, indices: Indices) -> Batch:
        """Return the inputs and labels of these samples.

        Raises:
            DataError: They do not fit the model, or their labels are wrong.
        """
        inputs, labels = self._split.batch(indices)
        if self._check is not None:
            self._check(labels)
        return as_arrays(inputs, self._layout, self._specs), None if labels is None else _label_array(labels)

    def first(self, samples: int = 1) -> Batch:
        """Return the first samples."""
        return self.read(np.arange(min(samples, len(self)), dtype=np.int64))

    def dataset(self, indices: Sequence[Indices]) -> Any:
        """Return a ``tf.data.Dataset`` of these batches, ``(inputs, labels)`` each, read ahead and in this order.

        Raises:
            DataError: There are no labels.
        """
        labels = self.read(indices[0][:1])[1]
        if labels is None:
            raise DataError("train split: expected labels, which training needs; received none")
        signature = (
            tuple(tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in self._specs),
            tf.TensorSpec((None, *labels.shape[1:]), labels.dtype),
        )
        made = tf.data.Dataset.from_generator(lambda: self._walk(indices), output_signature=signature)
        options = tf.data.Options()
        options.deterministic = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        counted = made.apply(tf.data.experimental.assert_cardinality(len(indices)))
        return counted.prefetch(PREFETCH_BATCHES).with_options(options)

    def _walk(self, indices: Sequence[Indices]) -> Iterator[Batch]:
        try:
            for batch in indices:
                yield self.read(batch)
        except EdgekitError as error:
            self.failure = error
            raise


def _label_array(labels: Array) -> Array:
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)
