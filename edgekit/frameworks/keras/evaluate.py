"""How good a model is on a split: its loss and its top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.data.dataset import Array, Split
from edgekit.errors import DataError
from edgekit.frameworks.keras.batches import Batches
from edgekit.frameworks.keras.objective import Loss, count_correct, output_width
from edgekit.frameworks.keras.signature import pack_inputs
from edgekit.frameworks.training import LabelCheck
from edgekit.records import TensorSpec

__all__ = ["Score", "call_model", "evaluate", "forward_of", "score"]

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over samples."""

    loss_sum: float
    correct: int
    judged: int
    samples: int

    @property
    def loss(self) -> float | None:
        """Mean loss; None where there are no samples."""
        return self.loss_sum / self.samples if self.samples else None

    @property
    def accuracy(self) -> float | None:
        """Share of labels met; None where nothing was judged."""
        return self.correct / self.judged if self.judged else None


def call_model(model: Any, inputs: Sequence[Any], *, training: bool = False) -> Any:
    """Call a model with its inputs in order, however many it has."""
    return model(pack_inputs(model, inputs), training=training)


def forward_of(model: Any, specs: Sequence[TensorSpec]) -> Callable[..., Any]:
    """Return the model's evaluation as one graph for every batch size.

    Args:
        model: A keras or tf_keras model.
        specs: Its inputs.
    """
    signature = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs]
    forward: Callable[..., Any] = tf.function(
        lambda *inputs: call_model(model, inputs), input_signature=signature, autograph=False
    )
    return forward


def score(
    forward: Callable[..., Any], batches: Batches, loss: Loss | None, *, judge: bool, batch: int = EVALUATION_BATCH
) -> Score:
    """Add up loss and correct answers over a split.

    Args:
        forward: From :func:`forward_of`.
        batches: The split.
        loss: What to add up; None: no loss.
        judge: Whether labels are classes, so that accuracy means something.
        batch: Samples at once.
    """
    loss_sum, correct, judged, samples = 0.0, 0, 0, 0
    for start in range(0, len(batches), batch):
        inputs, labels = batches.read(np.arange(start, min(start + batch, len(batches)), dtype=np.int64))
        outputs = forward(*(tf.constant(array) for array in inputs))
        samples += len(inputs[0])
        if labels is None:
            continue
        if loss is not None:
            loss_sum += float(loss(outputs, tf.constant(labels))) * len(inputs[0])
        if judge:
            correct += int(count_correct(outputs, labels))
            judged += labels.size
    return Score(loss_sum, correct, judged, samples)


def evaluate(
    model: Any, split: Split, specs: Sequence[TensorSpec], *, layout: str | None = None, name: str = "test"
) -> float:
    """Return the top-1 accuracy (0 to 1) of a model on a split, in the model's own arithmetic.

    Args:
        model: A keras or tf_keras model.
        split: With class labels.
        specs: The model's inputs.
        layout: The data's layout (``NCHW`` images are turned to NHWC).
        name: Of the split, for messages.

    Raises:
        DataError: The split is empty, or its labels are missing or do not fit the output.
    """
    if len(split) == 0:
        raise DataError(f"accuracy: expected at least one sample in the {name} split; received none")
    forward = forward_of(model, specs)
    plain = Batches(split, specs, layout=layout)
    check: Callable[[Array | None], None] = LabelCheck(output_width(forward(*plain.first()[0])), name)
    found = score(forward, Batches(split, specs, layout=layout, check=check), None, judge=True)
    return found.correct / found.judged
