"""``reference.npz``: the verification samples, and what the source model and the program said of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Reference:
    """The verification samples; every array has the samples in axis 0.

    Attributes:
        inputs: One array an input of the model.
        labels: Class indices or regression targets; None where there are none.
        source: One array an output, from the source model.
        program: The same from the program.
    """

    inputs: tuple[Array, ...]
    labels: Array | None
    source: tuple[Array, ...]
    program: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.inputs[0])


def load_reference(path: Path) -> Reference:
    """Read a reference whole.

    Raises:
        ArtifactError: The file is missing, truncated, or lacks what a reference holds.
    """
    arrays = load_arrays(path)
    groups = {prefix: _numbered(arrays, prefix) for prefix in ("input_", "source_output_", "program_output_")}
    missing = [f"{prefix}0" for prefix, found in groups.items() if not found]
    if missing:
        raise ArtifactError(
            f"{path}: expected a reference with input_0, source_output_0 and program_output_0; "
            f"received {', '.join(sorted(arrays)) or 'nothing'}. Build again to make it anew."
        )
    counts = {len(array) for group in groups.values() for array in group}
    if len(counts) != 1 or counts == {0}:
        raise ArtifactError(f"{path}: expected as many samples in every array, at least one; received {sorted(counts)}")
    return Reference(groups["input_"], arrays.get("label"), groups["source_output_"], groups["program_output_"])


def load_arrays(path: Path) -> dict[str, Array]:
    """Read every array of an ``.npz`` file.

    Raises:
        ArtifactError: The file is missing, truncated or no ``.npz``.
    """
    try:
        with path.open("rb") as stream:  # numpy leaves a file that it opened itself open when the archive is broken
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one bare array, not an .npz archive")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ArtifactError(
            f"expected a readable .npz file at {path}; {error}. Build again to make it anew."
        ) from error


def _numbered(arrays: dict[str, Array], prefix: str) -> tuple[Array, ...]:
    count = sum(1 for name in arrays if name.startswith(prefix))
    return tuple(arrays[f"{prefix}{i}"] for i in range(count) if f"{prefix}{i}" in arrays)
