"""Small float16 programs to place, each saved as a package; float32 inputs, as exported ones have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from formats.coreml.evaluator.mil_programs import mb, program_of, save

from edgekit.formats.coreml.placement.predict import predict
from edgekit.records import OperationPlacement, Placement

RANDOM = np.random.default_rng(3)


def package(folder: Path, build: Callable[..., Any], ios: int = 17, **shapes: tuple[int, ...]) -> Path:
    """Save a program that casts its inputs to float16, and its result back."""

    def whole(**inputs: Any) -> Any:
        halves = {name: mb.cast(x=value, dtype="fp16") for name, value in inputs.items()}
        return mb.cast(x=build(**halves), dtype="fp32")

    inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return save(program_of(whole, inputs, ios), ios, folder)


def place(folder: Path, build: Callable[..., Any], ios: int = 17, **shapes: tuple[int, ...]) -> Placement:
    """Place such a program, all units allowed."""
    return predict(package(folder, build, ios, **shapes))


def placed(placement: Placement, kind: str) -> OperationPlacement:
    """Return the first operation of a type."""
    return next(item for item in placement.operations if item.type == kind)


def weights(*shape: int) -> np.ndarray:
    """Float16 weights."""
    return RANDOM.normal(0, 0.05, shape).astype(np.float16)


def convolutions(count: int, channels: int = 64) -> Callable[..., Any]:
    """A chain of 3x3 convolutions with rectifiers."""

    def build(x: Any) -> Any:
        for _ in range(count):
            x = mb.relu(x=mb.conv(x=x, weight=weights(channels, channels, 3, 3), pad_type="same"))
        return x

    return build
