"""Keras files: ``.keras`` archives and HDF5, of Keras 3 or tf_keras. What they say is read before anything is loaded.

A file's content decides, not its suffix: TensorFlow before 2.12 wrote HDF5 under the name ``.keras``.
"""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import h5py
import keras
import tensorflow as tf
import tf_keras
from packaging.version import InvalidVersion, Version

from edgekit.errors import ModelError
from edgekit.frameworks.keras.trust import custom_objects

KerasLibrary = Literal["keras", "tf_keras"]

REFUSALS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, ImportError, OSError,
    RuntimeError, AssertionError, EOFError, zipfile.BadZipFile, tf.errors.OpError,
)  # fmt: skip
"""What Keras's loaders raise on files that they do not understand."""

_LIBRARIES: dict[KerasLibrary, Any] = {"keras": keras, "tf_keras": tf_keras}
_WEIGHTS_MEMBER = "model.weights.h5"
_DISTRIBUTIONS: dict[KerasLibrary, str] = {"keras": "keras", "tf_keras": "tf-keras"}


@dataclass(frozen=True, slots=True)
class KerasFile:
    """What a file says of itself.

    Attributes:
        config: The model's configuration; None where the file holds weights only.
        written_by: Version of the Keras that wrote it; None where it does not say, or not in the form of a version.
        archive: Whether it is a zip archive (else HDF5).
    """

    config: Any
    written_by: Version | None
    archive: bool


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A model that was read from a file."""

    library: KerasLibrary
    model: Any
    notes: tuple[str, ...] = ()


def load_file(path: Path, *, trust: bool) -> LoadedFile:
    """Load a model with the library that wrote it, or the other one where that refuses it.

    Raises:
        ModelError: The file is truncated, no Keras file, of a newer version, or needs classes that are not here.
        UntrustedCodeError: Loading would execute code and ``trust`` is not set.
    """
    content = read_file(path)
    if content.config is None:
        raise ModelError(f"{str(path)!r} holds weights only. Give the model as package.module:callable")
    order = _order(content.written_by, path)
    refused: list[str] = []
    for library in order:
        objects = custom_objects(content.config, _LIBRARIES[library], file=path.name, trust=trust)
        try:
            model = _load(path, library, content.archive, objects, trust=trust)
        except REFUSALS as error:
            refused.append(f"{library} {version(_DISTRIBUTIONS[library])}: {_reason(error)}")
            continue
        notes = () if not refused else (f"{path.name} was loaded by {library}; refused by {refused[0]}",)
        return LoadedFile(library, model, notes)
    raise ModelError(_refused_message(path, content.written_by, order[0], refused))


def read_file(path: Path) -> KerasFile:
    """Read a file's configuration and version; nothing is loaded.

    Raises:
        ModelError: It is truncated, or no Keras file.
    """
    if zipfile.is_zipfile(path):
        return _read_archive(path)
    if h5py.is_hdf5(path):
        return _read_hdf5(path)
    raise ModelError(
        f"{str(path)!r} ({path.stat().st_size} bytes) is truncated or no Keras file: expected a zip archive (.keras) "
        "or HDF5 (.h5). Copy it again, or save it anew with model.save(path)"
    )


def holds_weights_only(path: Path) -> bool:
    """Tell whether a Keras file holds weights and no architecture."""
    return read_file(path).config is None


def load_weights_file(model: Any, path: Path) -> None:
    """Load weights that Keras saved (``save_weights`` or ``save``) into a keras or tf_keras model.

    Raises:
        ModelError: The file is missing, truncated, or its weights do not fit.
    """
    if not path.is_file():
        raise ModelError(f"expected a file of weights; there is no file {str(path)!r}")
    archive = read_file(path).archive
    try:
        with _weights_of(path, archive=archive) as file, warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # about what does not fit, on the way to the error that says so
            model.load_weights(str(file))
    except REFUSALS as error:
        raise ModelError(
            f"the weights in {str(path)!r} do not fit the model: {_reason(error)}. Save them from the same "
            "architecture with model.save_weights('name.weights.h5')"
        ) from error


@contextmanager
def _weights_of(path: Path, *, archive: bool) -> Iterator[Path]:
    """Give the file of weights the name by which Keras's loaders know its kind."""
    if not archive:
        with _under_suffix(path, ".h5" if _is_legacy_hdf5(path) else ".weights.h5") as link:
            yield link
        return
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as content:
        yield Path(content.extract(_WEIGHTS_MEMBER, folder))


def _read_archive(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" not in names:
                raise ModelError(
                    f"{str(path)!r} is a zip archive without config.json, so it is no Keras model. "
                    "Save it anew with model.save('name.keras')"
                )
            config = json.loads(archive.read("config.json"))
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{str(path)!r} is truncated or damaged: it cannot be read as a .keras archive ({type(error).__name__}: "
            f"{error}). Copy it again, or save it anew"
        ) from error
    if broken is not None:
        raise ModelError(f"{str(path)!r} is damaged: the checksum of {broken!r} inside it is wrong. Copy it again")
    written_by = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return KerasFile(config, _version(written_by), archive=True)


def _read_hdf5(path: Path) -> KerasFile:
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            written_by = file.attrs.get("keras_version")
        config = None if text is None else json.loads(text)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{str(path)!r} is truncated or damaged: it cannot be read as HDF5 ({_reason(error)}). Copy it again, or "
            "save it anew"
        ) from error
    return KerasFile(config, _version(written_by), archive=False)


def _is_legacy_hdf5(path: Path) -> bool:
    with h5py.File(path, "r") as file:
        return "layer_names" in file.attrs or "model_weights" in file


def _version(text: Any) -> Version | None:
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        return Version(str(text).removesuffix("-tf"))  # tf.keras 2.x wrote "2.4.0-tf"
    except InvalidVersion:
        return None


def _order(written_by: Version | None, path: Path) -> tuple[KerasLibrary, KerasLibrary]:
    """Choose whom to ask first.

    Raises:
        ModelError: The file is of a newer major version than any Keras here.
    """
    installed = Version(version("keras"))
    if written_by is not None and written_by.major > installed.major:
        raise ModelError(
            f"{str(path)!r} was written by Keras {written_by}, newer than the {installed} that is installed. Upgrade "
            "Keras, or save the model with the older version"
        )
    return ("keras", "tf_keras") if written_by is not None and written_by.major >= 3 else ("tf_keras", "keras")


def _load(path: Path, library: KerasLibrary, archive: bool, objects: dict[str, Any], *, trust: bool) -> Any:
    suffix = ".keras" if archive else ".h5"
    with _under_suffix(path, suffix) as link, warnings.catch_warnings():
        # Optimizer state that is not restored: nothing here trains on with the file's own optimizer.
        warnings.simplefilter("ignore", UserWarning)
        load = _LIBRARIES[library].models.load_model
        return load(str(link), custom_objects=objects, compile=False, safe_mode=not trust)


@contextmanager
def _under_suffix(path: Path, suffix: str) -> Iterator[Path]:
    """Give a file another suffix for a moment: Keras's loaders go by the name, not by the content."""
    right = path.name.endswith(suffix) and (suffix != ".h5" or not path.name.endswith(".weights.h5"))
    if right:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _refused_message(path: Path, written_by: Version | None, first: KerasLibrary, refused: list[str]) -> str:
    installed = version(_DISTRIBUTIONS[first])
    message = f"{str(path)!r} cannot be loaded. {'; '.join(refused)}"
    if written_by is not None and written_by > Version(installed):
        return f"{message}. It was written by Keras {written_by}, newer than the {installed} here: upgrade {first}"
    return f"{message}. Give the model as package.module:callable instead, and its weights as model.weights"


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
