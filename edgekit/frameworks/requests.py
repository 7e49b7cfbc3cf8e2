"""What the pipeline asks of a framework. Each request runs in a child process of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekit.recipe.schema import (
    ClusterRule,
    DataSection,
    DistilRule,
    ModelSection,
    PruneRule,
    QuantizeRule,
    TrainSection,
    VerifySection,
)
from edgekit.records import Precision, SourceModel, TrainingReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Load a model and say what it is.

    Attributes:
        model: Source, arguments, weights, trust.
        data: Where the input signature comes from when the source does not say; None without data.
        rules: Place in the recipe -> layer rules written there; each must match a layer of this model.
        quantize: The recipe's quantize steps: layers that they would have to refuse are refused now.
    """

    model: ModelSection
    data: DataSection | None
    rules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    quantize: tuple[QuantizeRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Train a model in floating point, pruning and distilling on the way.

    Attributes:
        model, data: What to train, on what.
        train: How; None: do not train (the weights are final), only describe and save.
        prune, distil: Compression during training; None: none.
        cluster: Weights that share values, after the float training and before any quantization; None: none.
        work_dir: Checkpoints are kept here; training resumes from the newest.
        output_dir: ``weights.pt`` (or the framework's own) is written here.
    """

    model: ModelSection
    data: DataSection | None
    train: TrainSection | None
    prune: PruneRule | None
    distil: DistilRule | None
    work_dir: Path
    output_dir: Path
    cluster: ClusterRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A trained model."""

    weights: Path
    source: SourceModel
    report: TrainingReport | None
    source_accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRequest:
    """Turn a trained model into a program of one precision, quantizing it (after training or with more training).

    Attributes:
        model, data: As in ``TrainRequest``.
        weights: The trained weights.
        precision: ``fp32``, ``int8``, ``int8-dynamic``, ``w8``, ``w4``, or one that the framework's ``programs`` name.
        quantize: The recipe's rule for this precision; None: defaults (post-training).
        train: The settings that quantization-aware epochs start from.
        prune: The pruning whose masks must survive quantization-aware training.
        cluster: The clustering whose shared values must survive it; None: none.
        verify: How many samples become the reference.
        dynamic_batch: Whether the program's batch is free.
        work_dir: Scratch.
        output_dir: ``program.pt2``, ``reference.npz``, ``calibration.npz`` are written here.
    """

    model: ModelSection
    data: DataSection | None
    weights: Path
    precision: Precision
    quantize: QuantizeRule | None
    train: TrainSection | None
    prune: PruneRule | None
    distil: DistilRule | None
    verify: VerifySection
    dynamic_batch: bool
    work_dir: Path
    output_dir: Path
    cluster: ClusterRule | None = None
