"""Quantization-aware training of a prepared graph, in the framework's own training loop."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.fx import GraphModule

from edgekit.data.dataset import Dataset
from edgekit.errors import UnsupportedError
from edgekit.frameworks.pytorch.capture import move_constants
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.cluster import Clusterer
from edgekit.frameworks.pytorch.device import place
from edgekit.frameworks.pytorch.distil import Distiller
from edgekit.frameworks.pytorch.loop import run_epochs
from edgekit.frameworks.pytorch.prune import MaskKeeper
from edgekit.frameworks.pytorch.quantize import calibrate, watch
from edgekit.frameworks.pytorch.samples import Samples, has_free_batch
from edgekit.frameworks.training import QAT_LEARNING_RATE_SHARE
from edgekit.recipe.schema import QuantizeRule, TrainSection
from edgekit.records import EpochMetrics

FREEZE_SHARE = 2 / 3
"""Share of the epochs after which activation scales are fixed (Krishnamoorthi 2018, section 4.1, freezes late too)."""
FIRST_RANGE_SAMPLES = 128


class ObserverSchedule:
    """Which epochs, and which data, the observers of activations see.

    They watch training data only, and only until :data:`FREEZE_SHARE` of the epochs: scales that move to the end keep
    the weights from settling.

    Args:
        epochs: Epochs of the training.
    """

    def __init__(self, epochs: int) -> None:
        self.freeze_from = max(1, math.ceil(epochs * FREEZE_SHARE))
        self._frozen = False

    def set_mode(self, module: nn.Module, training: bool) -> None:
        """Switch between training and validation."""
        module.train(training)
        if isinstance(module, GraphModule):
            watch(module, training and not self._frozen)

    def start_epoch(self, module: GraphModule, epoch: int) -> None:
        """Freeze the scales when the time has come."""
        self._frozen = epoch >= self.freeze_from
        watch(module, not self._frozen)


def train_prepared(
    prepared: GraphModule,
    dataset: Dataset,
    rule: QuantizeRule,
    settings: TrainSection,
    *,
    first: Samples,
    keeper: MaskKeeper | None = None,
    clusterer: Clusterer | None = None,
    distiller: Distiller | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[EpochMetrics, ...]:
    """Train a graph that ``prepare(..., qat=True)`` returned, in place; the best epoch's weights are kept.

    Args:
        prepared: With fake quantization.
        dataset: As for float training.
        rule: Epochs and learning rate.
        settings: Of the float training; batch size, optimizer, schedule and device hold here too.
        first: Samples from which activation scales start, instead of from whatever the first batch holds.
        keeper: Keeps pruned weights at zero.
        clusterer: Keeps clustered weights on shared values.
        distiller: The teacher's term in the loss.
        checkpoints: Where to resume from.

    Raises:
        UnsupportedError: The model takes one batch size only.
        ToolError: The loss became NaN or infinite.
    """
    if not has_free_batch(prepared):
        raise UnsupportedError(
            "quantization-aware training of a model that takes one batch size only",
            reason="training needs batches, and the model's code holds a constant where the batch size belongs",
            instead="mode: ptq, or use x.shape[0] in the model",
        )
    schedule = ObserverSchedule(rule.epochs)
    watch(prepared, watching=True)
    calibrate(prepared, [first.first(FIRST_RANGE_SAMPLES).inputs])
    move_constants(prepared, place(settings, prepared).device)
    history = run_epochs(
        prepared,
        dataset,
        settings.model_copy(update={"patience": rule.epochs}),  # never stops early, keeps the best epoch
        epochs=rule.epochs,
        phase="qat",
        lr=rule.lr or settings.lr * QAT_LEARNING_RATE_SHARE,
        after_step=_after_step(keeper, clusterer),
        on_epoch_start=lambda epoch: schedule.start_epoch(prepared, epoch),
        set_mode=schedule.set_mode,
        distiller=distiller,
        checkpoints=checkpoints,
        stateful={} if clusterer is None else {"clusterer": clusterer},
        best_from=min(schedule.freeze_from, rule.epochs - 1),
    )
    move_constants(prepared, "cpu")
    if keeper is not None:
        keeper.apply()
    return history


def _after_step(keeper: MaskKeeper | None, clusterer: Clusterer | None) -> Callable[[int, int], None]:
    """Zeros first: what became of a zero must not move the values that others share."""
    steps = [step for step in (keeper, None if clusterer is None else clusterer.step) if step is not None]

    def after_step(step: int, total: int) -> None:
        for follow in steps:
            follow(step, total)

    return after_step
