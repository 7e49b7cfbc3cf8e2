"""SavedModel folders: a tf_keras model where the folder holds one, else a signature that runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from edgekit.errors import ModelError, UntrustedCodeError
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.trust import FILE_OPERATIONS, foreign_parts

MARKER = "saved_model.pb"
_KERAS_METADATA = "keras_metadata.pb"
_SIGNATURES = ("serving_default", "serve")
"""Which signature to run, the first that there is; a folder's only one is taken whatever it is called."""


@dataclass(frozen=True, slots=True)
class LoadedFolder:
    """What a folder held.

    Attributes:
        model: A tf_keras model, or a concrete function with named inputs and outputs.
        is_keras: Which of the two.
        notes: What the user should know.
        owner: Holds the variables of a concrete function, which does not keep them alive itself.
    """

    model: Any
    is_keras: bool
    notes: tuple[str, ...]
    owner: Any


def load_saved_model(path: Path, *, trust: bool) -> LoadedFolder:
    """Load a SavedModel.

    tf_keras would run the bytecode of a ``Lambda`` layer while it loads a folder. Without ``trust`` such a folder is
    taken as what TensorFlow recorded of it, its signature, which executes no Python.

    Raises:
        ModelError: The folder is damaged, or has no signature to run.
        UntrustedCodeError: The graph reads or writes files or calls Python, and ``trust`` is not set.
    """
    graph = _read_graph(path)
    if not trust:
        _refuse_reaching_out(graph, path)
    notes: tuple[str, ...] = ()
    lambdas = [] if trust else [part.layer for part in _carried_code(graph, path)]
    if lambdas:
        notes = (
            f"{path.name}: the Lambda layer {lambdas[0]!r} was not rebuilt from the Python code that the folder "
            "carries; its recorded graph is used. --trust (model.trust) loads the Keras model",
        )
    elif _is_keras(graph, path):
        model, notes = _load_keras(path)
        if model is not None:
            return LoadedFolder(model, True, (), None)
    owner, signature = _load_signature(path)
    return LoadedFolder(signature, False, notes, owner)


def _read_graph(path: Path) -> Any:
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((path / MARKER).read_bytes())
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{str(path / MARKER)!r} is truncated or no SavedModel ({error}). Copy the folder again, or save it anew"
        ) from error
    if not message.meta_graphs:
        raise ModelError(f"{str(path / MARKER)!r} holds no graph, so it is no SavedModel. Save it anew")
    return message


def _refuse_reaching_out(message: Any, path: Path) -> None:
    for graph in message.meta_graphs:
        functions = graph.graph_def.library.function
        for node in (*graph.graph_def.node, *(node for function in functions for node in function.node_def)):
            if node.op in FILE_OPERATIONS:
                raise UntrustedCodeError(
                    f"the graph of {str(path)!r} holds the operation {node.op} ({node.name!r}), which reads or writes "
                    "files or calls Python. If you trust where it comes from, allow it with --trust (model.trust in a "
                    "recipe)"
                )


def _carried_code(message: Any, path: Path) -> Iterator[Any]:
    for text in _metadata(message, path):
        try:
            config = json.loads(text)
        except ValueError:
            continue  # other objects of TensorFlow keep text of their own here
        yield from (part for part in foreign_parts(config, tf_keras) if part.kind == "code")


def _metadata(message: Any, path: Path) -> Iterator[str]:
    """Yield what Keras wrote of each layer: in a file of its own since TensorFlow 2.5, in the graph before."""
    if (path / _KERAS_METADATA).is_file():
        metadata = saved_metadata_pb2.SavedMetadata()
        try:
            metadata.ParseFromString((path / _KERAS_METADATA).read_bytes())
        except DecodeError as error:
            raise ModelError(f"{str(path / _KERAS_METADATA)!r} is truncated ({error}). Save the model anew") from error
        yield from (node.metadata for node in metadata.nodes)
    for graph in message.meta_graphs:
        yield from (node.user_object.metadata for node in graph.object_graph_def.nodes if node.user_object.metadata)


def _is_keras(message: Any, path: Path) -> bool:
    objects = (node for graph in message.meta_graphs for node in graph.object_graph_def.nodes)
    return (path / _KERAS_METADATA).is_file() or any(
        node.user_object.identifier.startswith("_tf_keras_") for node in objects
    )


def _load_keras(path: Path) -> tuple[Any | None, tuple[str, ...]]:
    """Return the Keras model, or why there is none: its signature still runs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = tf_keras.models.load_model(str(path), compile=False)
    except REFUSALS as error:
        return None, (f"{path.name}: its signature is used, because tf_keras refused the model: {_reason(error)}",)
    if isinstance(model, tf_keras.Model):
        return model, ()
    return None, (f"{path.name}: its signature is used, because the folder holds a layer that is no model",)


def _load_signature(path: Path) -> tuple[Any, Any]:
    try:
        owner = tf.saved_model.load(str(path))
    except REFUSALS as error:
        raise ModelError(
            f"{str(path)!r} is damaged, or needs operations that this TensorFlow lacks: {_reason(error)}. Copy the "
            "folder again, or save it anew"
        ) from error
    signatures = owner.signatures
    name = next((name for name in _SIGNATURES if name in signatures), None)
    if name is None and len(signatures) == 1:
        name = next(iter(signatures))
    if name is None:
        found = ", ".join(sorted(signatures)) or "none"
        raise ModelError(
            f"{str(path)!r}: expected a signature 'serving_default'; it has {found}. Save it with "
            "tf.saved_model.save(model, path, signatures={'serving_default': ...}), or model.export(path) in Keras 3"
        )
    return owner, signatures[name]


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
