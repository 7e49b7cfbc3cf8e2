"""How good a module is on a split: its loss and its top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from edgekit.data.dataset import Split
from edgekit.errors import DataError
from edgekit.frameworks.pytorch.feed import Feed
from edgekit.frameworks.pytorch.objective import LabelCheck, Loss, count_correct, output_width
from edgekit.frameworks.pytorch.samples import has_free_batch

__all__ = ["Score", "SetMode", "evaluate", "score", "train_mode"]

SetMode = Callable[[nn.Module, bool], None]
"""Switches a module to training (True) or to evaluation."""

EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over samples, so that those of several processes can be added."""

    loss_sum: float
    correct: int
    judged: int
    samples: int


def train_mode(module: nn.Module, training: bool) -> None:
    """Switch as ordinary modules do. Exported graphs need their own way."""
    module.train(training)


@torch.no_grad()
def score(
    module: nn.Module,
    feed: Feed,
    loss: Loss | None,
    *,
    judge: bool,
    rank: int = 0,
    processes: int = 1,
    batch: int = EVALUATION_BATCH,
) -> Score:
    """Add up loss and correct answers over this process's share of a split.

    Args:
        module: In evaluation mode, on the feed's device.
        feed: The split.
        loss: What to add up; None: no loss.
        judge: Whether labels are classes, so that accuracy means something.
        rank: This process, from 0.
        processes: How many share the split.
        batch: Samples at once.
    """
    loss_sum, correct, judged, samples = 0.0, 0, 0, 0
    own = np.arange(rank, len(feed), processes, dtype=np.int64)
    chunks = [own[start : start + batch] for start in range(0, len(own), batch)]
    for inputs, labels in feed.batches(chunks):
        outputs = module(*inputs)
        size = len(inputs[0])
        samples += size
        if labels is None:
            continue
        if loss is not None:
            loss_sum += float(loss(outputs, labels)) * size
        if judge:
            correct += int(count_correct(outputs, labels))
            judged += labels.numel()
    return Score(loss_sum, correct, judged, samples)


def evaluate(
    module: nn.Module,
    split: Split,
    *,
    layout: str | None = None,
    device: str = "cpu",
    set_mode: SetMode | None = None,
    name: str = "test",
) -> float:
    """Return the top-1 accuracy (0 to 1) of a module on a split, in the module's own arithmetic.

    Args:
        module: Left on ``device`` in evaluation mode.
        split: With class labels.
        layout: The data's layout (``NHWC`` images are turned to NCHW).
        device: Where to compute.
        set_mode: How to switch to evaluation; ``module.train(False)`` unless given.
        name: Of the split, for messages.

    Raises:
        DataError: The split is empty, or its labels are missing or do not fit the output.
    """
    if len(split) == 0:
        raise DataError(f"accuracy: expected at least one sample in the {name} split; received none")
    (set_mode or train_mode)(module.to(device), False)
    plain = Feed(split, torch.device(device), layout=layout)
    with torch.no_grad():
        inputs, _ = next(iter(plain.batches([np.arange(1, dtype=np.int64)])))
        check = LabelCheck(output_width(module(*inputs)), name)
    # An exported program refuses every batch size but its own.
    batch = 1 if isinstance(module, GraphModule) and not has_free_batch(module) else EVALUATION_BATCH
    found = score(module, Feed(split, torch.device(device), layout=layout, check=check), None, judge=True, batch=batch)
    return found.correct / found.judged
