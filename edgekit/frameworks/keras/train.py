"""Train a model in floating point, pruning and learning from a teacher on the way; cluster its weights afterwards."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tf_keras

from edgekit.data.checks import labels_of
from edgekit.data.dataset import Dataset
from edgekit.data.sources import load_dataset
from edgekit.frameworks.keras.batches import Batches
from edgekit.frameworks.keras.checkpoint import Checkpoints
from edgekit.frameworks.keras.cluster import Clusterer, ClusterReport
from edgekit.frameworks.keras.describe import describe_source
from edgekit.frameworks.keras.distil import Distiller, load_distiller
from edgekit.frameworks.keras.evaluate import call_model, evaluate
from edgekit.frameworks.keras.fit import fit_epochs, zero_share
from edgekit.frameworks.keras.library import library_of
from edgekit.frameworks.keras.load import Source, load_source
from edgekit.frameworks.keras.objective import output_width
from edgekit.frameworks.keras.optimizer import seed_epoch
from edgekit.frameworks.keras.prune import Pruner, PruningReport
from edgekit.frameworks.keras.rebuild import as_tf_keras
from edgekit.frameworks.keras.runner import input_specs
from edgekit.frameworks.keras.strategy import clone, open_strategy, place
from edgekit.frameworks.keras.weights_file import read_weights, write_weights
from edgekit.frameworks.requests import TrainRequest, TrainResult
from edgekit.frameworks.training import (
    QAT_LEARNING_RATE_SHARE,
    LabelCheck,
    batches_of,
    check_train_request,
    epoch_order,
)
from edgekit.recipe.pruning import first_final_epoch
from edgekit.recipe.schema import ClusterRule, PruneRule, TrainSection
from edgekit.records import EpochMetrics, TrainingReport

__all__ = ["Compression", "train", "train_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """What happens to the weights during and after the float training; None: nothing of that kind."""

    prune: PruneRule | None = None
    cluster: ClusterRule | None = None


def train(request: TrainRequest) -> TrainResult:
    """Load, train and save a model; without ``request.train`` only load, judge and save it.

    Raises:
        ModelError: The model or the teacher cannot be loaded, or has nothing to train.
        DataError: The data cannot be loaded, or do not fit the model.
        RecipeError: Settings that contradict each other or this machine.
        ToolError: The loss became NaN or infinite.
        OutputError: The output folder cannot be written.
    """
    check_train_request(request)
    if request.train is not None:
        place(request.train)  # virtual devices can be made only before TensorFlow computes anything
    # The initial weights are drawn while the model is built: without a seed here, nothing that follows is repeatable.
    _seed_builders(request.train.seed if request.train is not None else 0)
    source = load_source(request.model)
    dataset = None if request.data is None else load_dataset(request.data)
    if dataset is not None:
        check_fit(source, dataset, request.train)
    report = None
    if request.train is not None and dataset is not None:
        report = train_model(
            source.model,
            dataset,
            request.train,
            compression=Compression(prune=request.prune, cluster=request.cluster),
            distiller=None if request.distil is None else load_distiller(request.distil),
            checkpoints=request.work_dir / "checkpoints",
        )
    weights = request.output_dir / "weights.npz"
    request.output_dir.mkdir(parents=True, exist_ok=True)
    if source.library in ("keras", "tf_keras"):
        write_weights(source.model, weights)
    return TrainResult(
        weights=weights,
        source=describe_source(source, dataset, name=request.model.source),
        report=report,
        source_accuracy=None if dataset is None else _test_accuracy(source, dataset),
    )


def train_model(
    model: Any,
    dataset: Dataset,
    settings: TrainSection,
    *,
    compression: Compression | None = None,
    distiller: Distiller | None = None,
    checkpoints: Path | None = None,
) -> TrainingReport:
    """Train a model in place, with pruning, a teacher and clustering as asked.

    Args:
        model: A keras or tf_keras model. Pruning and clustering work on tf_keras models only: a Keras 3 model is
            rebuilt as one, and its trained weights come back.
        dataset: With labels.
        settings: As in a recipe.
        compression: Pruned during training, at the latest at its end; clustered in epochs that follow.
        distiller: The teacher's term in the loss.
        checkpoints: Folder to resume from and to save to; clustering has one of its own beside it.

    Raises:
        ModelError: A model that cannot be rebuilt where that is needed.
        As :func:`~edgekit.frameworks.keras.fit.fit_epochs`, ``Pruner.prepare`` and ``Clusterer.prepare``.
    """
    started = time.perf_counter()
    asked = compression or Compression()
    placement = place(settings)
    epochs, pruned = _train_float(model, dataset, settings, asked.prune, distiller, checkpoints)
    clustered = None
    if asked.cluster is not None:
        folder = None if checkpoints is None else checkpoints.with_name(f"{checkpoints.name}-cluster")
        more, clustered = _train_clustered(model, dataset, settings, asked, distiller, folder)
        epochs += tuple(replace(metrics, epoch=len(epochs) + metrics.epoch) for metrics in more)
    return TrainingReport(
        device=placement.device,
        autocast=placement.autocast,
        epochs=epochs,
        seconds=time.perf_counter() - started,
        sparsity=zero_share(model),
        sparsity_by_layer={} if pruned is None else pruned.sparsity_by_layer,
        clusters_by_layer={} if clustered is None else clustered.clusters_by_layer,
        skipped=(() if pruned is None else pruned.skipped) + (() if clustered is None else clustered.skipped),
    )


def _train_float(
    model: Any,
    dataset: Dataset,
    settings: TrainSection,
    prune: PruneRule | None,
    distiller: Distiller | None,
    checkpoints: Path | None,
) -> tuple[tuple[EpochMetrics, ...], PruningReport | None]:
    placement = place(settings)
    strategy = open_strategy(placement)
    work = model
    if prune is not None:
        # Cloned always: the wrappers keep the layers that they are given.
        work = clone(as_tf_keras(model), policy=placement.policy, strategy=strategy)
    elif not placement.plain:
        work = clone(model, policy=placement.policy, strategy=strategy)
    steps = settings.epochs * len(batches_of(epoch_order(len(dataset.train), 0, 0), settings.batch_size))
    with strategy.scope():
        pruner = None if prune is None else Pruner.prepare(work, prune, steps)
    history = fit_epochs(
        work if pruner is None else pruner.model,
        dataset,
        settings,
        specs=_specs(model),
        placement=placement,
        strategy=strategy,
        hooks=None if pruner is None else pruner.hooks(),
        distiller=distiller,
        checkpoints=None if checkpoints is None else Checkpoints(checkpoints),
        best_from=0 if prune is None else first_final_epoch(prune, settings.epochs),
    )
    with strategy.scope():
        report = None if pruner is None else pruner.finalize()
    carry_weights(work, model)
    return history, report


def _train_clustered(
    model: Any,
    dataset: Dataset,
    settings: TrainSection,
    asked: Compression,
    distiller: Distiller | None,
    checkpoints: Path | None,
) -> tuple[tuple[EpochMetrics, ...], ClusterReport]:
    """Cluster a trained model. On one device and in float32: the wrappers know neither 16 bits nor several."""
    rule = asked.cluster or ClusterRule()
    plain = settings.model_copy(update={"devices": 1, "precision": "fp32", "patience": None})
    placement = place(plain)
    strategy = open_strategy(placement)
    _seed_builders(settings.seed)  # the first shared values are drawn
    with strategy.scope():
        clusterer = Clusterer.prepare(
            clone(as_tf_keras(model), strategy=strategy), rule, keep_zeros=asked.prune is not None
        )
    history = fit_epochs(
        clusterer.model,
        dataset,
        plain,
        specs=_specs(model),
        placement=placement,
        strategy=strategy,
        epochs=rule.epochs,
        phase="cluster",
        lr=rule.lr or settings.lr * QAT_LEARNING_RATE_SHARE,
        hooks=clusterer.hooks(),
        distiller=distiller,
        checkpoints=None if checkpoints is None else Checkpoints(checkpoints),
    )
    clustered, report = clusterer.finalize()
    carry_weights(clustered, model)
    return history, report


def carry_weights(trained: Any, model: Any) -> None:
    """Copy weights between models of the same architecture, of whichever library each is."""
    if trained is model:
        return
    if library_of(trained) is library_of(model):
        model.set_weights(trained.get_weights())
        return
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "weights.npz"
        write_weights(trained, path)
        read_weights(model, path)


def check_fit(source: Source, dataset: Dataset, settings: TrainSection | None) -> None:
    """Hold the labels of every split against the width of the model's output, before anything is trained.

    Raises:
        DataError: A label has no output of its own.
        ModelError: The output has no class dimension, or the source cannot be trained.
    """
    if settings is not None:
        library_of(source.model)
    if dataset.task != "classification" or (settings is not None and settings.loss != "cross_entropy"):
        return
    labels = {name: labels_of(getattr(dataset, name)) for name in ("train", "validation", "test")}
    if source.library not in ("keras", "tf_keras") or (settings is None and all(v is None for v in labels.values())):
        return
    inputs, _ = Batches(dataset.test, input_specs(source), layout=dataset.layout).first()
    width = output_width(call_model(source.model, inputs))
    for name, found in labels.items():
        LabelCheck(width, name)(found)


def _seed_builders(seed: int) -> None:
    """Seed what a model's builder draws from, in either library."""
    seed_epoch(seed, 0, [])
    tf_keras.utils.set_random_seed(seed)
    keras.utils.set_random_seed(seed)


def _specs(model: Any) -> Sequence[Any]:
    return input_specs(Source("tf_keras" if library_of(model) is tf_keras else "keras", model, None))


def _test_accuracy(source: Source, dataset: Dataset) -> float | None:
    """Accuracy of the float model in fp32, whatever arithmetic it was trained in."""
    unjudged = dataset.task != "classification" or dataset.test.batch([0])[1] is None
    if unjudged or source.library not in ("keras", "tf_keras"):
        return None
    return evaluate(source.model, dataset.test, input_specs(source), layout=dataset.layout)
