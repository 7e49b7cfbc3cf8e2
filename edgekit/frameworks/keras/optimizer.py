"""How weights move: the optimizer, its learning rate, and the randomness around it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.errors import ModelError
from edgekit.frameworks.keras.layers import walk_layers
from edgekit.frameworks.keras.library import library_of
from edgekit.frameworks.training import seed_of
from edgekit.recipe.schema import TrainSection

__all__ = ["decay_term", "make_optimizer", "seed_epoch", "use_seeded_generators"]

_EPSILON = 1e-8  # PyTorch's, so that the same recipe means the same


def make_optimizer(model: Any, settings: TrainSection, lr: float, steps: int, *, scale_loss: bool = False) -> Any:
    """Build the optimizer that the settings name, with its variables. Biases and normalization do not decay.

    Args:
        model: Its trainable variables are taken.
        settings: Optimizer, schedule and weight decay.
        lr: Learning rate to begin with.
        steps: Of the whole training. The cosine falls over them (eq. 5 of Loshchilov & Hutter, "SGDR", 2017).
        scale_loss: Guard 16-bit gradients against underflow; for fp16.

    Raises:
        ModelError: Nothing in the model can be trained.
    """
    library = library_of(model)
    variables = model.trainable_variables
    if not variables:
        raise ModelError("expected a model with trainable parameters; received none. Leave `train:` out of the recipe.")
    rate = lr if settings.schedule == "constant" else library.optimizers.schedules.CosineDecay(lr, max(steps, 1))
    if settings.optimizer == "sgd":
        optimizer = library.optimizers.SGD(rate, momentum=0.9)
    elif settings.optimizer == "adam":
        optimizer = library.optimizers.Adam(rate, epsilon=_EPSILON)
    else:
        optimizer = library.optimizers.AdamW(rate, epsilon=_EPSILON, weight_decay=settings.weight_decay)
        optimizer.exclude_from_weight_decay([variable for variable in variables if len(variable.shape) < 2])
    if scale_loss:
        home = library.mixed_precision
        optimizer = home.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def decay_term(model: Any, settings: TrainSection) -> Any:
    """Return a term of value 0 whose gradient is the weight decay of ``adam`` and ``sgd``.

    Their weight decay is the gradient of an L2 penalty, which momentum and moments see (AdamW's bypasses them). The
    value is taken back, so that the loss that is shown is the loss that was asked for.
    """
    if settings.optimizer == "adamw" or settings.weight_decay == 0.0:
        return tf.constant(0.0)
    weights = [variable for variable in model.trainable_variables if len(variable.shape) >= 2]
    squares = [tf.reduce_sum(tf.square(tf.cast(weight, tf.float32))) for weight in weights]
    penalty = 0.5 * settings.weight_decay * tf.add_n(squares)
    return penalty - tf.stop_gradient(penalty)


def use_seeded_generators(model: Any) -> list[Any]:
    """Give each random layer of a tf_keras model a generator whose state can be set, and return what can be set.

    By default tf_keras's dropout draws from a kernel's hidden state, which no checkpoint can hold. Keras 3 keeps that
    state in variables already.
    """
    found = []
    for _, layer in walk_layers(model):
        former = getattr(layer, "_random_generator", None)
        if former is not None and hasattr(former, "_rng_type"):
            layer._random_generator = type(former)(seed=0, rng_type="stateful")
            layer._random_generator._maybe_init()
            found.append(layer._random_generator._generator)
    return found + [
        variable for variable in getattr(model, "variables", []) if variable.name.startswith("seed_generator_state")
    ]


def seed_epoch(seed: int, epoch: int, generators: list[Any]) -> None:
    """Seed every generator for one epoch, so that a resumed training draws what the uninterrupted one drew.

    Args:
        seed: Of the training.
        epoch: From 0.
        generators: From :func:`use_seeded_generators`; each gets a seed of its own.
    """
    value = seed_of(seed, epoch, rank=0)
    # The seed of an operation is fixed when its graph is recorded, so this one must be the same in every epoch.
    tf.random.set_seed(seed_of(seed, epoch=0, rank=0))
    np.random.seed(value)  # the user's augmentation may draw from the global generator
    random.seed(value)
    for number, generator in enumerate(generators):
        own = seed_of(value, number, rank=0)
        if hasattr(generator, "reset_from_seed"):
            generator.reset_from_seed(own)
        else:
            generator.assign(np.array([own, 0], dtype=np.uint32))
