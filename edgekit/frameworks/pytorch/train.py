"""Train a model in floating point, pruning and learning from a teacher on the way; cluster its weights afterwards."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edgekit.data.checks import labels_of
from edgekit.data.dataset import Dataset
from edgekit.data.sources import load_dataset
from edgekit.frameworks.pytorch.checkpoint import Checkpoints, write_weights
from edgekit.frameworks.pytorch.cluster import Clusterer
from edgekit.frameworks.pytorch.describe import describe_source
from edgekit.frameworks.pytorch.device import is_first_process, place
from edgekit.frameworks.pytorch.distil import Distiller
from edgekit.frameworks.pytorch.evaluate import evaluate
from edgekit.frameworks.pytorch.feed import as_tensors
from edgekit.frameworks.pytorch.folding import fold_batch_norms, freeze_folded
from edgekit.frameworks.pytorch.load import load_module, load_source
from edgekit.frameworks.pytorch.loop import run_epochs, zero_share
from edgekit.frameworks.pytorch.objective import LabelCheck, output_width
from edgekit.frameworks.pytorch.optimizer import seed_generators
from edgekit.frameworks.pytorch.prune import Pruner
from edgekit.frameworks.requests import TrainRequest, TrainResult
from edgekit.frameworks.training import QAT_LEARNING_RATE_SHARE, check_train_request
from edgekit.recipe.pruning import first_final_epoch
from edgekit.recipe.schema import ClusterRule, DistilRule, PruneRule, TrainSection
from edgekit.records import TrainingReport

__all__ = ["cluster_module", "evaluate", "run_epochs", "train", "train_module"]


def train(request: TrainRequest) -> TrainResult:
    """Load, train and save a model; without ``request.train`` only load, judge and save it.

    Under torchrun every process calls this with the same request; the first one writes.

    Raises:
        ModelError: The model or the teacher cannot be loaded, or has nothing to train.
        DataError: The data cannot be loaded, or do not fit the model.
        RecipeError: Settings that contradict each other or this machine.
        ToolError: The loss became NaN or infinite.
        OutputError: The output folder cannot be written.
    """
    check_train_request(request)
    # The initial weights are drawn while the model is built: without a seed here, nothing that follows is repeatable.
    seed_generators(request.train.seed if request.train is not None else 0, epoch=0, rank=0)
    source = load_source(request.model)
    dataset = None if request.data is None else load_dataset(request.data)
    if dataset is not None:
        check_fit(source.module, dataset, request.train)
    report = None
    if request.train is not None and dataset is not None:
        distiller = None if request.distil is None else load_distiller(request.distil)
        report = train_module(
            source.module,
            dataset,
            request.train,
            prune=request.prune,
            distiller=distiller,
            checkpoints=Checkpoints(request.work_dir / "checkpoints"),
        )
        if request.cluster is not None:
            more = cluster_module(
                source.module,
                dataset,
                request.train,
                request.cluster,
                keep_zeros=request.prune is not None,
                distiller=distiller,
                checkpoints=Checkpoints(request.work_dir / "checkpoints-cluster"),
            )
            report = _joined(report, more)
    weights = request.output_dir / "weights.pt"
    if is_first_process():
        write_weights(source.module.state_dict(), weights)
    return TrainResult(
        weights=weights,
        source=describe_source(source, dataset, name=request.model.source),
        report=report,
        source_accuracy=None if dataset is None else _test_accuracy(source.module, dataset, request.train),
    )


def train_module(
    module: nn.Module,
    dataset: Dataset,
    settings: TrainSection,
    *,
    prune: PruneRule | None = None,
    distiller: Distiller | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainingReport:
    """Train a module in place, with pruning and a teacher as asked; on return it is on the CPU.

    Args:
        module: The float model.
        dataset: With labels.
        settings: As in a recipe.
        prune: Pruned during training, at the latest at its end.
        distiller: The teacher's term in the loss.
        checkpoints: Where to resume from and to save to.

    Raises:
        As :func:`~edgekit.frameworks.pytorch.loop.run_epochs` and ``Pruner.prepare``.
    """
    started = time.perf_counter()
    placement = place(settings, module)
    pruner = None if prune is None else Pruner.prepare(module, prune)
    epochs = run_epochs(
        module,
        dataset,
        settings,
        after_step=None if pruner is None else pruner.step,
        distiller=distiller,
        checkpoints=checkpoints,
        stateful={} if pruner is None else {"pruner": pruner},
        best_from=0 if prune is None else first_final_epoch(prune, settings.epochs),
    )
    pruned = None if pruner is None else pruner.finalize()
    return TrainingReport(
        device=placement.device,
        autocast=placement.autocast,
        epochs=epochs,
        seconds=time.perf_counter() - started,
        sparsity=zero_share(module),
        sparsity_by_layer={} if pruned is None else pruned.sparsity_by_layer,
        skipped=() if pruned is None else pruned.skipped,
    )


def cluster_module(
    module: nn.Module,
    dataset: Dataset,
    settings: TrainSection,
    rule: ClusterRule,
    *,
    keep_zeros: bool,
    distiller: Distiller | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainingReport:
    """Let the weights of a trained module share values, with some more training, in place.

    Batch norms are folded first: a converter would fold them later, and multiply each output channel of a weight by a
    factor of its own, which would make as many values as channels out of every shared one.

    Args:
        module: Trained.
        dataset: With labels.
        settings: Of the float training; batch size, optimizer, schedule and device hold here too.
        rule: How many values, epochs and learning rate.
        keep_zeros: Whether the zeros of pruned layers stay zeros.
        distiller: The teacher's term in the loss.
        checkpoints: Where to resume from and to save to.

    Raises:
        As :func:`~edgekit.frameworks.pytorch.loop.run_epochs`, ``fold_batch_norms`` and ``Clusterer.prepare``.
    """
    started = time.perf_counter()
    folded = fold_batch_norms(module, as_tensors(dataset.sample(), dataset.layout))
    clusterer = Clusterer.prepare(module, rule, keep_zeros=keep_zeros)
    frozen = [parameter for name in folded if (parameter := module.get_submodule(name).weight) is not None]
    for parameter in frozen:
        parameter.requires_grad_(False)

    def set_mode(module: nn.Module, training: bool) -> None:
        module.train(training)
        freeze_folded(module, folded)

    epochs = run_epochs(
        module,
        dataset,
        settings.model_copy(update={"patience": None}),
        epochs=rule.epochs,
        phase="cluster",
        lr=rule.lr or settings.lr * QAT_LEARNING_RATE_SHARE,
        after_step=clusterer.step,
        set_mode=set_mode,
        distiller=distiller,
        checkpoints=checkpoints,
        stateful={"clusterer": clusterer},
    )
    for parameter in frozen:
        parameter.requires_grad_(True)
    report = clusterer.report()
    placement = place(settings, module)
    return TrainingReport(
        device=placement.device,
        autocast=placement.autocast,
        epochs=epochs,
        seconds=time.perf_counter() - started,
        sparsity=zero_share(module),
        clusters_by_layer=report.clusters_by_layer,
        skipped=report.skipped,
    )


def _joined(trained: TrainingReport, clustered: TrainingReport) -> TrainingReport:
    """Put the report of what followed behind that of the float training."""
    more = tuple(replace(metrics, epoch=len(trained.epochs) + metrics.epoch) for metrics in clustered.epochs)
    return replace(
        trained,
        epochs=trained.epochs + more,
        seconds=trained.seconds + clustered.seconds,
        sparsity=clustered.sparsity,
        clusters_by_layer=clustered.clusters_by_layer,
        skipped=trained.skipped + clustered.skipped,
    )


def load_distiller(rule: DistilRule) -> Distiller:
    """Load the teacher that a rule names.

    Raises:
        ModelError: It cannot be loaded.
    """
    return Distiller(load_module(rule.teacher), rule)


def check_fit(module: nn.Module, dataset: Dataset, settings: TrainSection | None) -> None:
    """Hold the labels of every split against the width of the model's output, before anything is trained.

    Raises:
        DataError: A label has no output of its own.
        ModelError: The output has no class dimension.
    """
    if dataset.task != "classification" or (settings is not None and settings.loss != "cross_entropy"):
        return
    labels = {name: labels_of(getattr(dataset, name)) for name in ("train", "validation", "test")}
    if settings is None and all(found is None for found in labels.values()):
        return
    with torch.no_grad():
        width = output_width(module.eval()(*as_tensors(dataset.sample(), dataset.layout)))
    for name, found in labels.items():
        LabelCheck(width, name)(found)


def _test_accuracy(module: nn.Module, dataset: Dataset, settings: TrainSection | None) -> float | None:
    """Accuracy of the float model in fp32, whatever arithmetic it was trained in."""
    if dataset.task != "classification" or dataset.test.batch(np.arange(1))[1] is None:
        return None
    device = "cpu" if settings is None else place(settings).device
    accuracy = evaluate(module, dataset.test, layout=dataset.layout, device=device)
    module.to("cpu")
    return accuracy
