"""Tiny models of both libraries, and what a user's module would hold."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

LIBRARIES = (keras, tf_keras)


def title(library: Any) -> str:
    return str(library.__name__)


def two_headed(library: Any) -> Any:
    """Images in, a dict of two outputs out, a model inside the model."""
    layers = library.layers
    image = library.Input((8, 8, 3), name="image")
    hidden = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    hidden = layers.ReLU(name="act")(layers.BatchNormalization(name="norm")(hidden))
    hidden = layers.GlobalAveragePooling2D(name="pool")(hidden)
    inner = library.Sequential(
        [layers.Dense(5, activation="relu", name="up"), layers.Dense(4, name="down")], name="inner"
    )
    hidden = inner(hidden)
    outputs = {"logits": layers.Dense(2, name="head")(hidden), "aux": layers.Softmax(name="soft")(hidden)}
    return lively(library.Model(image, outputs, name="net"))


def dense(library: Any, width: int = 4) -> Any:
    inputs = library.Input((width,), name="x")
    return lively(library.Model(inputs, library.layers.Dense(2, name="head")(inputs), name="tiny"))


MARK = "EDGEKIT_TEST_MARK"
"""Environment variable with the path of the file that the code of :func:`lambda_model` leaves behind."""


def lambda_model(library: Any) -> Any:
    """A Lambda layer whose code leaves a file behind when it runs."""
    function = lambda tensor: (  # noqa: E731
        __import__("pathlib").Path(__import__("os").environ["EDGEKIT_TEST_MARK"]).touch(),
        tensor * 2.0,
    )[1]
    return library.Sequential([library.Input((3,)), library.layers.Lambda(function, output_shape=(3,), name="twice")])


def lively(model: Any) -> Any:
    """Give every weight another value, statistics of batch norm included."""
    generator = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(generator.uniform(0.1, 0.9, tuple(variable.shape)).astype(np.float32))
    return model


def outputs_of(model: Any, array: Any) -> list[np.ndarray]:
    """Run without edgekit; dicts in the order of their keys."""
    returned = model(array, training=False)
    if isinstance(returned, dict):
        returned = [returned[key] for key in sorted(returned)]
    return [np.asarray(part) for part in (returned if isinstance(returned, list | tuple) else [returned])]


def offer(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """Make a module that a model section may name."""
    module = types.ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def rewrite_archive(path: Path, **changes: Any) -> None:
    """Change the JSON members of a ``.keras`` archive: ``config`` and ``metadata`` get functions of their content."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for member, change in changes.items():
        content = json.loads(members[f"{member}.json"])
        change(content)
        members[f"{member}.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
