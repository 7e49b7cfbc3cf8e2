"""Models (with the datasets of all frameworks) small enough to train in a fraction of a second."""

from __future__ import annotations

import torch
from tiny_datasets import CLASSES as CLASSES
from tiny_datasets import SAMPLES as SAMPLES
from tiny_datasets import dataset_of as dataset_of
from tiny_datasets import images as images
from tiny_datasets import vectors as vectors
from torch import Tensor, nn

from edgekit.recipe.schema import TrainSection

torch.set_num_threads(1)  # threads cost more than they bring at this size


def perceptron(seed: int = 0) -> nn.Module:
    """With dropout, so that a wrong random state shows."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, CLASSES))


def plain_perceptron(seed: int = 0) -> nn.Module:
    """Without batch norm and dropout, which see each process's share of a batch only."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def unseeded() -> nn.Module:
    """Draws its weights from wherever the generator stands, as nearly every model does."""
    return nn.Linear(8, CLASSES)


def two_classes() -> nn.Module:
    """Too narrow for the data."""
    return nn.Linear(8, 2)


def convolutions(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def settings(**changes: object) -> TrainSection:
    return TrainSection(**{"epochs": 3, "batch_size": 32, "lr": 1e-2, "device": "cpu", **changes})  # type: ignore[arg-type]


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(one == other and torch.equal(a, b) for (one, a), (other, b) in pairs)


def farthest(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def always_zero(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss of a user's own that teaches nothing."""
    return outputs.sum() * 0.0 + 0.5


def exploding(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss that is infinite from the second call on."""
    exploding.calls += 1  # type: ignore[attr-defined]
    return outputs.sum() * (float("inf") if exploding.calls > 1 else 1.0)  # type: ignore[attr-defined]


exploding.calls = 0  # type: ignore[attr-defined]
