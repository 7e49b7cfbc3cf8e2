"""Load a source model: a Python callable, a Keras file, a SavedModel folder or a ``.tflite`` file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tf_keras
from keras.src.utils import naming

from edgekit.data.dataset import Array
from edgekit.errors import ArtifactError, ModelError
from edgekit.frameworks.callables import builder_of, call_builder
from edgekit.frameworks.keras.files import holds_weights_only, load_file, load_weights_file
from edgekit.frameworks.keras.saved_model import MARKER, load_saved_model
from edgekit.frameworks.keras.signature import refuse_unsupported, with_signature
from edgekit.frameworks.keras.weights_file import read_weights
from edgekit.program.tflite import flatbuffer
from edgekit.recipe.schema import ModelSection

__all__ = ["FILE_SUFFIXES", "Library", "Source", "load_source", "load_weights"]

Library = Literal["keras", "tf_keras", "saved_model", "tflite"]

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
FILE_SUFFIXES = (*KERAS_SUFFIXES, ".tflite")
_EXPECTED = "Expected package.module:callable, a .keras, .h5, .hdf5 or .tflite file, or a SavedModel folder"


@dataclass(frozen=True, slots=True)
class Source:
    """A source model in memory.

    Attributes:
        library: What the model is.
        model: A ``keras.Model`` or ``tf_keras.Model`` with known inputs and outputs; a SavedModel's signature (a
            concrete function); None for ``.tflite``.
        path: The file or folder that it was read from; None for a callable.
        example_inputs: What a callable gave as an example, batch in axis 0; empty where it gave none.
        notes: What the user should know of how it was loaded.
        owner: What must stay in memory as long as ``model`` is used.
    """

    library: Library
    model: Any
    path: Path | None
    example_inputs: tuple[Array, ...] = ()
    notes: tuple[str, ...] = ()
    owner: Any = None


def load_source(section: ModelSection, *, weights: Path | None = None) -> Source:
    """Load what the model section of a recipe names.

    Args:
        section: Source, builder, weights, arguments, trust.
        weights: A file that replaces the section's own weights (trained weights, usually).

    Raises:
        ModelError: A file, module or callable is missing, broken or of the wrong kind, weights do not fit, or the model
            has inputs or state that a program cannot have.
        UntrustedCodeError: A file would execute code and ``trust`` is not set.
    """
    _require_tensorflow()
    source = _load(section)
    given = weights or section.weights
    if source.library in ("keras", "tf_keras"):
        known = replace(source, model=with_signature(source.model, source.example_inputs, name=section.source))
    else:
        known = source
    if given is not None:
        # What Keras saved belongs to the model as the user built it; what edgekit saved, to the one that it trains.
        load_weights(known if Path(given).suffix == ".npz" else source, Path(given))
    refuse_unsupported(known.library, known.model, known.path, name=section.source)
    return known


def load_weights(source: Source, path: Path) -> None:
    """Load weights into a model: ``.npz`` (written by edgekit), ``.weights.h5``, ``.h5`` or ``.keras``.

    Raises:
        ModelError: The file is missing, broken or holds other weights, or the source cannot take any.
    """
    if source.library not in ("keras", "tf_keras"):
        kind = "a .tflite file" if source.library == "tflite" else "a SavedModel that is no Keras model"
        raise ModelError(
            f"model.weights: {kind} keeps its own weights; {str(path)!r} cannot be loaded into it. Leave model.weights "
            "out, or give the Keras model as package.module:callable"
        )
    if path.suffix == ".npz":
        read_weights(source.model, path)
    else:
        load_weights_file(source.model, path)


def _require_tensorflow() -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ModelError(
            f"Keras runs on its {backend!r} backend here; expected 'tensorflow', through which models are converted. "
            "Set KERAS_BACKEND=tensorflow, or leave KERAS_BACKEND and the backend of ~/.keras/keras.json out"
        )


def _load(section: ModelSection) -> Source:
    text, path = section.source, Path(section.source)
    if ":" in text and path.suffix not in FILE_SUFFIXES and not path.exists():
        return _build(text, section.args, "model.source")
    if path.is_dir():
        return _from_folder(path, trust=section.trust)
    if not path.is_file():
        raise ModelError(f"model.source: there is no file {text!r}. {_EXPECTED}")
    if path.suffix == ".tflite":
        return _from_tflite(path)
    if path.suffix not in KERAS_SUFFIXES:
        raise ModelError(f"model.source: received {text!r}. {_EXPECTED}")
    if holds_weights_only(path):
        return _from_weights(path, section)
    loaded = load_file(path, trust=section.trust)
    return Source(loaded.library, loaded.model, path, notes=loaded.notes)


def _from_folder(path: Path, *, trust: bool) -> Source:
    if not (path / MARKER).is_file():
        raise ModelError(
            f"model.source: the folder {str(path)!r} holds no {MARKER}, so it is no SavedModel. {_EXPECTED}"
        )
    found = load_saved_model(path, trust=trust)
    library: Library = "tf_keras" if found.is_keras else "saved_model"
    return Source(library, found.model, path, notes=found.notes, owner=found.owner)


def _from_tflite(path: Path) -> Source:
    try:
        flatbuffer.read_model(path)
    except ArtifactError as error:
        raise ModelError(f"model.source: {error}") from error
    return Source("tflite", None, path)


def _from_weights(path: Path, section: ModelSection) -> Source:
    builder = builder_of(section, path)
    source = _build(builder, section.args, "model.builder")
    with_signature(source.model, source.example_inputs, name=builder)  # a model has no weights until it is built
    load_weights(source, path)
    return source


def _build(text: str, arguments: Mapping[str, Any], place: str) -> Source:
    _name_layers_from_the_start()
    model, example = call_builder(text, arguments, place)
    example = tuple(example) if isinstance(example, tuple | list) else (example,)
    arrays = tuple(np.asarray(array) for array in example)
    if isinstance(model, keras.Model):
        return Source("keras", model, None, arrays)
    if isinstance(model, tf_keras.Model):
        return Source("tf_keras", model, None, arrays)
    raise ModelError(
        f"{place}: expected {text} to return a keras.Model or a tf_keras.Model, or a model and its example inputs; "
        f"received {type(model).__name__}"
    )


def _name_layers_from_the_start() -> None:
    """Let a model's unnamed layers be called the same whatever was built before it in this process.

    Weights and layer rules know layers by name: ``dense_1`` must not become ``dense_3`` because a teacher was loaded
    first.
    """
    naming.reset_uids()  # Keras 3 exports clear_session only, which forgets far more than names
    tf_keras.backend.reset_uids()
