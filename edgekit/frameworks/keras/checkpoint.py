"""Keras's training states on disk: numpy arrays and plain values."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.data.dataset import Array
from edgekit.frameworks.checkpoints import CheckpointFolder

__all__ = ["Checkpoints"]

_STRUCTURE = "structure"


class Checkpoints(CheckpointFolder):
    """The checkpoints of one training run, the newest two of them.

    Not Keras's own format: that holds the weights of a model by name, and a training that goes on exactly needs the
    optimizer's state, the history and the best weights in the same file.

    Args:
        folder: Where they lie; created when the first is written.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        super().__init__(folder, pack=_packed, unpack=_unpacked, keep=keep)


def _packed(content: dict[str, Any]) -> bytes:
    arrays: dict[str, Array] = {}

    def without_arrays(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays[f"array_{len(arrays)}"] = value
            return {"array": len(arrays) - 1}
        if isinstance(value, dict):
            return {"items": [[key, without_arrays(part)] for key, part in value.items()]}
        if isinstance(value, list | tuple):
            return [without_arrays(part) for part in value]
        return value

    structure = json.dumps(without_arrays(content)).encode()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_STRUCTURE: np.frombuffer(structure, np.uint8), **arrays})
    return buffer.getvalue()


def _unpacked(payload: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        structure = json.loads(stored[_STRUCTURE].tobytes())

        def with_arrays(value: Any) -> Any:
            if isinstance(value, list):
                return [with_arrays(part) for part in value]
            if isinstance(value, dict) and "array" in value:
                return stored[f"array_{value['array']}"]
            if isinstance(value, dict):
                return {key: with_arrays(part) for key, part in value["items"]}
            return value

        content: dict[str, Any] = with_arrays(structure)
    return content
