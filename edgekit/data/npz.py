"""Datasets from one ``.npz`` file.

Keys: ``x`` and ``y`` (divided here into splits), or ``train_x``, ``train_y``, ``validation_x`` …, ``test_y``. A model
with several inputs has ``x_0``, ``x_1`` … in place of ``x``. Labels may be missing: such data can calibrate, not train.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgekit.data.dataset import Array, ArraySplit, Dataset, Task
from edgekit.data.split import hold_out
from edgekit.errors import DataError

_KEY = re.compile(r"(?:(train|validation|test)_)?(?:x(?:_(\d+))?|(y))")
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise for damaged, encrypted or foreign archives."""
KEYS = "x, y; or train_x, train_y, test_x, test_y, validation_x, validation_y; x_0, x_1 … for several inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class NpzOptions:
    """What the ``args`` of an ``npz:`` source may hold.

    Attributes:
        task: What the labels mean; found out from their dtype and shape unless given.
        layout: Of image-like inputs.
        classes: Names of the classes.
        input_names: One a model input.
        test_share: Share of the samples that becomes the test split where the file names none.
    """

    task: Task | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    classes: tuple[str, ...] = ()
    input_names: tuple[str, ...] = ()
    test_share: float = 0.2


def load_npz(path: Path, options: NpzOptions, *, validation_share: float, seed: int) -> Dataset:
    """Read a dataset from an ``.npz`` file.

    float64 inputs become float32 (no mobile runtime takes float64); integer class labels become int64.

    Args:
        path: The file.
        options: The source's ``args``.
        validation_share: Share of the training samples held out where the file has no ``validation_x``.
        seed: Draws the splits.

    Raises:
        DataError: The file is missing, truncated, holds pickled objects, or its keys do not make a dataset.
    """
    if not 0 < options.test_share < 1:
        raise DataError(f"data.args.test_share: expected a share between 0 and 1; received {options.test_share!r}")
    groups = _group(path, read_arrays(path))
    splits = {name: _as_split(path, name, arrays) for name, arrays in groups.items()}
    if "" in splits:
        if len(splits) > 1:
            raise DataError(
                f"{path}: expected either x, y or train_x …, test_x …; received both kinds. Allowed: {KEYS}"
            )
        splits["train"] = splits.pop("")
    if "train" not in splits:
        raise DataError(f"{path}: expected training samples (train_x or x); received only {', '.join(sorted(splits))}")
    if "test" not in splits:
        splits["train"], splits["test"] = _divide(splits["train"], options.test_share, seed, "test")
    if "validation" not in splits:
        splits["train"], splits["validation"] = _divide(splits["train"], validation_share, seed + 1, "validation")
    return Dataset(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        task=options.task or _task_of(splits["train"].labels),
        classes=options.classes,
        layout=options.layout,
        input_names=options.input_names,
    )


def read_arrays(path: Path) -> dict[str, Array]:
    """Read every array of an ``.npz`` file; pickled objects are refused, because reading them executes code.

    Raises:
        DataError: The file is missing, is no ``.npz``, is truncated or holds pickled objects.
    """
    if not path.is_file():
        raise DataError(f"expected a .npz file at {path}; there is no such file")
    with path.open("rb") as stream:
        try:
            loaded = np.load(stream, allow_pickle=False)
        except _UNREADABLE as error:
            raise DataError(
                f"{path}: expected a .npz file as numpy.savez writes it; it cannot be read ({error})"
            ) from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: expected a .npz file with named arrays; received a single .npy array")
        with loaded:
            return {name: _read_array(path, loaded, name) for name in loaded.files}


def _read_array(path: Path, file: np.lib.npyio.NpzFile, name: str) -> Array:
    try:
        array = file[name]
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: the array {name!r} cannot be read ({error}). Expected plain numbers, written by numpy.savez from "
            "arrays whose dtype is not object (pickled objects are refused: they run code)."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name!r}: expected an array in numpy's format; received {len(array)} other bytes")
    return array


def _group(path: Path, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Sort arrays by the split that their key names; the split of ``x`` and ``y`` is the empty name."""
    groups: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise DataError(f"{path}: unknown array {key!r}. Allowed: {KEYS}")
        split, index, labels = match.groups()
        groups.setdefault(split or "", {})["y" if labels else f"x_{int(index or 0)}"] = array
    if not groups:
        raise DataError(f"{path}: expected arrays; the file holds none. Allowed: {KEYS}")
    return groups


def _as_split(path: Path, name: str, arrays: Mapping[str, Array]) -> ArraySplit:
    inputs = sorted((key for key in arrays if key != "y"), key=lambda key: int(key.removeprefix("x_")))
    prefix = f"{name}_" if name else ""
    if inputs != [f"x_{index}" for index in range(len(inputs))] or not inputs:
        received = ", ".join(prefix + key for key in arrays)
        raise DataError(
            f"{path}: expected inputs {prefix}x, or {prefix}x_0, {prefix}x_1 … without gaps; received {received}"
        )
    for key, array in arrays.items():
        if array.ndim == 0:
            raise DataError(f"{path}: {prefix}{key}: expected samples in axis 0; received a single number")
    labels = arrays.get("y")
    try:
        return ArraySplit(
            tuple(_as_input(arrays[key]) for key in inputs), None if labels is None else as_labels(labels)
        )
    except DataError as error:
        raise DataError(f"{path}: split {name or 'x, y'}: {error}") from error


def _as_input(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def as_labels(labels: Array) -> Array:
    """Bring labels to the dtypes that losses take: class indices to int64, targets to float32."""
    if labels.dtype.kind in "iub":
        return labels.astype(np.int64)
    return labels.astype(np.float32) if labels.dtype == np.float64 else labels


def _task_of(labels: Array | None) -> Task:
    return "regression" if labels is not None and (labels.dtype.kind == "f" or labels.ndim != 1) else "classification"


def _divide(split: ArraySplit, share: float, seed: int, what: str) -> tuple[ArraySplit, ArraySplit]:
    stay, held = hold_out(np.arange(len(split)), split.labels, share, seed, what)
    kept, given = (ArraySplit(*split.batch(indices)) for indices in (stay, held))
    return kept, given
