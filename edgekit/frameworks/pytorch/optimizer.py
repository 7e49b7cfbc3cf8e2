"""How weights move: the optimizer, its learning rate, and the randomness around it."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.frameworks.training import learning_rate, seed_of
from edgekit.recipe.schema import TrainSection

__all__ = ["learning_rate", "make_optimizer", "seed_generators"]


def make_optimizer(
    module: nn.Module, settings: TrainSection, lr: float, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Build the optimizer that the settings name. Biases and normalization parameters (rank 0 and 1) do not decay.

    Args:
        module: Its trainable parameters are taken.
        settings: Optimizer and weight decay.
        lr: Learning rate to begin with.
        fused: One kernel for all parameters; for CUDA.

    Raises:
        ModelError: Nothing in the module can be trained.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        raise ModelError("expected a model with trainable parameters; received none. Leave `train:` out of the recipe.")
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=fused)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=lr, fused=fused)


def seed_generators(seed: int, epoch: int, rank: int) -> None:
    """Seed every global generator for one epoch of one process.

    Dropout and augmentation then depend on the seed, the epoch and the process alone, so that a resumed training
    draws what the uninterrupted one drew.
    """
    value = seed_of(seed, epoch, rank)
    torch.manual_seed(value)
    np.random.seed(value)  # the user's augmentation may draw from the global generator
    random.seed(value)
