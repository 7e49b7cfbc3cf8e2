"""Weights of a Keras model as a ``.npz`` file that Keras 3 and tf_keras both understand, without executing anything.

Keys are ``<layer path>/<index>``: the dotted path of a layer through nested models (``backbone.stem``), and the place
of a variable among the layer's own and those of the layers inside it, depth first. Layers inside a layer (the cell of
an LSTM, the projections of an attention layer) have names that differ between the libraries; their order does not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data.dataset import Array
from edgekit.errors import ModelError
from edgekit.frameworks.keras.layers import children, own_weights, walk_layers

__all__ = ["read_weights", "settle_weights", "variables_inside", "weight_arrays", "write_weights"]


def write_weights(model: Any, path: Path) -> None:
    """Write every weight of a keras or tf_keras model, whole or not at all; the same weights give the same bytes."""
    partial = path.with_name(path.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for key, array in weight_arrays(model).items():
            entry = zipfile.ZipInfo(f"{key}.npy")  # its date is 1980, always: numpy.savez would write today's
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    partial.replace(path)


def read_weights(model: Any, path: Path) -> None:
    """Load weights into a keras or tf_keras model of the same architecture; every key and shape must fit.

    Raises:
        ModelError: The file is missing, broken, or holds other weights. The model is then as it was.
    """
    found = _read(path)
    expected = dict(weight_variables(model))
    problems = _problems(expected, found)
    if problems:
        raise ModelError(f"the weights in {str(path)!r} do not fit the model: {'; '.join(problems[:6])}")
    for key, variable in expected.items():
        variable.assign(found[key])
    settle_weights(model)


def settle_weights(model: Any) -> None:
    """Let layers compute what they derive from their weights: ``Normalization`` keeps a copy of its statistics."""
    for _, layer in walk_layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def weight_arrays(model: Any) -> dict[str, Array]:
    """Return every weight of a model under its key."""
    return {key: np.asarray(variable.numpy()) for key, variable in weight_variables(model)}


def weight_variables(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(key, variable)`` of every weight of a model, each variable once."""
    yield from _named(model, prefix, set())


def _named(model: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    for index, variable in enumerate(own_weights(model)):
        if id(variable) not in seen:
            seen.add(id(variable))
            yield f"{prefix}/{index}".removeprefix("/"), variable
    for layer in children(model):
        path = f"{prefix}.{layer.name}" if prefix else layer.name
        if isinstance(getattr(layer, "layers", None), list):
            yield from _named(layer, path, seen)
            continue
        for index, variable in enumerate(variables_inside(layer)):
            if id(variable) not in seen:
                seen.add(id(variable))
                yield f"{path}/{index}", variable


def variables_inside(layer: Any) -> Iterator[Any]:
    """Yield a layer's own variables, then those of the layers inside it, depth first."""
    yield from own_weights(layer)
    for part in children(layer):
        yield from variables_inside(part)


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise ModelError(f"expected a file of weights; there is no file {str(path)!r}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, Mapping):
                raise ModelError(f"expected a .npz file of weights; {str(path)!r} holds a single array")
            return {key: archive[key] for key in archive}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{str(path)!r} is truncated or no .npz file of weights ({type(error).__name__}). Copy it again"
        ) from error


def _problems(expected: Mapping[str, Any], found: Mapping[str, Array]) -> list[str]:
    problems = _listed("missing from the file", expected.keys() - found.keys())
    problems += _listed("unknown to the model", found.keys() - expected.keys())
    for key in sorted(expected.keys() & found.keys()):
        shape = tuple(int(size) for size in expected[key].shape)
        if shape != found[key].shape:
            problems.append(f"{key} has shape {list(found[key].shape)}, the model needs {list(shape)}")
    return problems


def _listed(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"{what}: {shown}"]
