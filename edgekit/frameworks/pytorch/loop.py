"""The training loop: one path for CPU and GPU, one process or several, floating point or quantization-aware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgekit.data.dataset import Dataset
from edgekit.errors import DataError, ToolError
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.describe import digest_of
from edgekit.frameworks.pytorch.device import deterministic_algorithms, open_fabric, place, to_memory_format
from edgekit.frameworks.pytorch.distil import Distiller
from edgekit.frameworks.pytorch.evaluate import SetMode, score, train_mode
from edgekit.frameworks.pytorch.feed import Batch, Feed, Indices, as_tensors, epoch_order, share_of_rank
from edgekit.frameworks.pytorch.meter import EpochMeter
from edgekit.frameworks.pytorch.objective import LabelCheck, all_finite, count_correct, make_loss, output_width
from edgekit.frameworks.pytorch.observers import float_observers
from edgekit.frameworks.pytorch.optimizer import learning_rate, make_optimizer, seed_generators
from edgekit.frameworks.training import BestEpoch, EpochPlace, fingerprint_of
from edgekit.recipe.schema import TrainSection
from edgekit.records import EpochMetrics, from_json, to_json

__all__ = ["Stateful", "run_epochs", "zero_share"]


class Stateful(Protocol):
    """Anything whose state must be in a checkpoint for a resumed training to end the same."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take a state back."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hooks:
    after_step: Callable[[int, int], None] | None
    on_epoch_start: Callable[[int], None] | None
    on_epoch_end: Callable[[EpochMetrics], None] | None
    set_mode: SetMode


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    epochs: int
    lr: float
    phase: str
    best_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Validation:
    loss: float | None
    accuracy: float | None


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What changes from epoch to epoch, besides weights and optimizer."""

    best: BestEpoch[dict[str, Tensor]]
    history: list[EpochMetrics] = field(default_factory=list)


def run_epochs(
    module: nn.Module,
    dataset: Dataset,
    settings: TrainSection,
    *,
    epochs: int | None = None,
    phase: str = "train",
    lr: float | None = None,
    after_step: Callable[[int, int], None] | None = None,
    on_epoch_start: Callable[[int], None] | None = None,
    on_epoch_end: Callable[[EpochMetrics], None] | None = None,
    set_mode: SetMode | None = None,
    distiller: Distiller | None = None,
    checkpoints: Checkpoints | None = None,
    stateful: Mapping[str, Stateful] | None = None,
    best_from: int = 0,
) -> tuple[EpochMetrics, ...]:
    """Train a module in place; on return it is on the CPU, in evaluation mode, contiguous.

    The same seed gives the same weights. The batch size counts all data-parallel processes together, so their number
    does not change the result beyond rounding (except through batch norm, whose statistics are of each process's
    share). Killed and started again with the same ``checkpoints``, it ends with the weights of an uninterrupted run.

    Args:
        module: A float module, or a graph prepared for quantization-aware training; takes the inputs positionally.
        dataset: Trained on ``train``, judged on ``validation``.
        settings: As in a recipe.
        epochs: Overrides ``settings.epochs``.
        phase: ``train``, ``qat`` ...; shown in progress and kept in the metrics.
        lr: Overrides ``settings.lr``.
        after_step: Called as ``(step, steps)`` after each optimizer step, counted from 0 over the whole training.
        on_epoch_start: Called with the epoch (from 0) before it begins, with the module in training mode.
        on_epoch_end: Called with the metrics of each epoch that this call trained.
        set_mode: Switches between training (True) and evaluation; ``module.train(training)`` unless given. Exported
            graphs need their own, and observers must not watch validation data.
        distiller: Adds a teacher's term to the loss.
        checkpoints: Where to resume from and to save to after each epoch.
        stateful: Name -> what else belongs into a checkpoint (a :class:`~.prune.Pruner`).
        best_from: First epoch that may count as the best, and from which ``settings.patience`` counts: before
            pruning has reached its sparsity, a better accuracy is not a better model.

    Returns:
        One record an epoch, those before a resume included.

    Raises:
        RecipeError: A setting that this machine or module cannot follow.
        DataError: Labels that do not fit the model's output, or too few samples.
        ToolError: The loss became NaN or infinite.
    """
    total = settings.epochs if epochs is None else epochs
    if total == 0:
        return ()
    plan = _Plan(epochs=total, lr=settings.lr if lr is None else lr, phase=phase, best_from=best_from)
    hooks = _Hooks(
        after_step=after_step,
        on_epoch_start=on_epoch_start,
        on_epoch_end=on_epoch_end,
        set_mode=set_mode or train_mode,
    )
    with deterministic_algorithms(), float_observers(module):
        run = _Run(module, dataset, settings, plan, hooks, distiller)
        return run.train(checkpoints, stateful or {})


def zero_share(module: nn.Module) -> float:
    """Return the share of exact zeros in the module's matrices and kernels (parameters of rank 2 and more)."""
    weights = [parameter for parameter in module.parameters() if parameter.dim() >= 2]
    total = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / total if total else 0.0


class _Run:
    """One call of :func:`run_epochs`: what is set up once, and the epochs."""

    def __init__(
        self,
        module: nn.Module,
        dataset: Dataset,
        settings: TrainSection,
        plan: _Plan,
        hooks: _Hooks,
        distiller: Distiller | None,
    ) -> None:
        self._module = module
        self._dataset = dataset
        self._settings = settings
        self._plan = plan
        self._hooks = hooks
        self._distiller = distiller
        # Of copies: a tensor that numpy has looked into cannot be resized, which observers do at their first batch.
        self._initial_digest = digest_of({name: tensor.clone() for name, tensor in module.state_dict().items()})
        self._placement = place(settings, module)
        self._fabric = open_fabric(self._placement)
        self._loss = make_loss(settings)
        self._judge = dataset.task == "classification"
        self._steps = len(self._shares(0))
        self._settle_module()
        self._feed, self._validation = self._open_feeds()
        forward = torch.compile(module) if self._placement.compile else module
        optimizer = make_optimizer(module, settings, plan.lr, fused=self._fabric.device.type == "cuda")
        self._model, self._optimizer = self._fabric.setup(forward, optimizer)

    def train(self, checkpoints: Checkpoints | None, stateful: Mapping[str, Stateful]) -> tuple[EpochMetrics, ...]:
        """Resume, run the epochs that are left, and leave the chosen weights in the module."""
        fingerprint = fingerprint_of(self._settings, self._plan, self._dataset, self._initial_digest)
        saved = checkpoints.load(fingerprint) if checkpoints is not None else None
        progress = _Progress(best=BestEpoch(patience=self._settings.patience, first=self._plan.best_from))
        if saved is not None:
            self._restore(progress, saved, stateful)
        while len(progress.history) < self._plan.epochs and not progress.best.is_long_ago(len(progress.history)):
            metrics = self._epoch(len(progress.history))
            progress.history.append(metrics)
            progress.best.note(metrics, self._weights)
            if checkpoints is not None and self._fabric.is_global_zero:
                checkpoints.save(len(progress.history), fingerprint, self._state(progress, stateful))
            self._fabric.barrier()  # no process goes on before the state is safe
            if self._hooks.on_epoch_end is not None:
                self._hooks.on_epoch_end(metrics)
        if progress.best.weights is not None:
            self._module.load_state_dict(progress.best.weights)
        to_memory_format(self._module.to("cpu"), torch.contiguous_format)
        self._hooks.set_mode(self._module, False)
        return tuple(progress.history)

    # What is set up once

    def _shares(self, epoch: int) -> list[Indices]:
        order = epoch_order(len(self._dataset.train), self._settings.seed, epoch)
        return share_of_rank(order, self._settings.batch_size, self._fabric.global_rank, self._fabric.world_size)

    def _settle_module(self) -> None:
        self._module.to(self._fabric.device)
        if self._placement.channels_last:
            to_memory_format(self._module, torch.channels_last)
        if self._distiller is not None:
            self._distiller.to(self._fabric.device)

    def _open_feeds(self) -> tuple[Feed, Feed]:
        classes = self._classes()
        train, validation = (
            Feed(
                split,
                self._fabric.device,
                layout=self._dataset.layout,
                channels_last=self._placement.channels_last,
                check=None if classes is None else LabelCheck(classes, name),
            )
            for name, split in (("train", self._dataset.train), ("validation", self._dataset.validation))
        )
        return train, validation

    def _classes(self) -> int | None:
        """Return the width of the output where labels must fit it.

        Not of a prepared graph: its fake quantizers cannot run before they have observed a training batch, and the
        float model that it was made of has the same outputs.
        """
        if self._settings.loss != "cross_entropy" or isinstance(self._module, torch.fx.GraphModule):
            return None
        inputs = as_tensors(self._dataset.train.batch(self._shares(0)[0])[0], self._dataset.layout)
        self._hooks.set_mode(self._module, False)
        with torch.no_grad(), self._fabric.autocast():
            return output_width(self._module(*(tensor.to(self._fabric.device) for tensor in inputs)))

    # One epoch

    def _epoch(self, epoch: int) -> EpochMetrics:
        seed_generators(self._settings.seed, epoch, self._fabric.global_rank)
        self._hooks.set_mode(self._module, True)
        if self._hooks.on_epoch_start is not None:
            self._hooks.on_epoch_start(epoch)
        meter = EpochMeter(
            EpochPlace(phase=self._plan.phase, epoch=epoch, epochs=self._plan.epochs, steps=self._steps),
            self._fabric.device,
            processes=self._fabric.world_size,
            silent=not self._fabric.is_global_zero,
        )
        for index, batch in enumerate(self._feed.batches(self._shares(epoch))):
            self._step(epoch * self._steps + index, batch, meter)
        loss, steps, correct, judged = self._summed(*meter.totals)
        rate = meter.samples_per_second
        self._check_weights(epoch)
        self._share_buffers()
        validation = self._validate()
        return EpochMetrics(
            epoch=epoch,
            phase=self._plan.phase,
            loss=loss / steps,
            accuracy=correct / judged if judged else None,
            validation_accuracy=validation.accuracy,
            validation_loss=validation.loss,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            sparsity=zero_share(self._module),
            samples_per_second=rate,
        )

    def _step(self, step: int, batch: Batch, meter: EpochMeter) -> None:
        inputs, labels = batch
        if labels is None:
            raise DataError("train split: expected labels, which training needs; received none")
        total = self._steps * self._plan.epochs
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._settings, self._plan.lr, step, total)
        outputs = self._model(*inputs)
        loss = self._loss(outputs, labels)
        if self._distiller is not None:
            with self._fabric.autocast():
                loss = self._distiller(inputs, outputs, loss)
        self._optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        self._optimizer.step()
        if self._hooks.after_step is not None:
            self._hooks.after_step(step, total)
        correct = count_correct(outputs, labels) if self._judge else None
        meter.add(loss.detach(), len(labels), correct, labels.numel())

    def _summed(self, *values: float) -> list[float]:
        """Add numbers up over all processes."""
        if self._fabric.world_size == 1:
            return list(values)
        local = torch.tensor(values, dtype=torch.float64, device=self._fabric.device)
        return [float(value) for value in self._fabric.all_reduce(local, reduce_op="sum")]

    def _share_buffers(self) -> None:
        """Take the first process's buffers (batch statistics) everywhere, which are the ones that are saved."""
        if self._fabric.world_size > 1:
            for buffer in self._module.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _check_weights(self, epoch: int) -> None:
        """Catch what the last step's loss cannot show, before it reaches a checkpoint."""
        if not all_finite(list(self._module.parameters())):
            raise ToolError(
                f"weights became NaN or infinite in epoch {epoch + 1} of {self._plan.epochs}, step {self._steps} "
                f"({self._plan.phase}). Lower train.lr (a tenth is a good next try).",
                stage=self._plan.phase,
            )

    def _validate(self) -> _Validation:
        self._hooks.set_mode(self._module, False)
        with self._fabric.autocast():
            rank, world = self._fabric.global_rank, self._fabric.world_size
            own = score(self._module, self._validation, self._loss, judge=self._judge, rank=rank, processes=world)
        loss_sum, correct, judged, samples = self._summed(own.loss_sum, own.correct, own.judged, own.samples)
        return _Validation(loss=loss_sum / samples if samples else None, accuracy=correct / judged if judged else None)

    # What is kept

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}

    def _state(self, progress: _Progress, stateful: Mapping[str, Stateful]) -> dict[str, Any]:
        return {
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._fabric.strategy.precision.state_dict(),
            "history": [to_json(metrics) for metrics in progress.history],
            "best": progress.best.state(),
            "stateful": {name: part.state_dict() for name, part in stateful.items()},
        }

    def _restore(self, progress: _Progress, state: Mapping[str, Any], stateful: Mapping[str, Stateful]) -> None:
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._fabric.strategy.precision.load_state_dict(state["scaler"])
        for name, part in stateful.items():
            part.load_state_dict(state["stateful"][name])
        progress.history = [from_json(EpochMetrics, metrics) for metrics in state["history"]]
        progress.best.restore(state["best"])
