"""Training states on disk: written whole or not at all, checked before they are believed.

Data order, dropout and augmentation derive from the seed and the epoch, and the learning rate from the step, so a
state at the end of an epoch is all that is needed to go on exactly as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit import process
from edgekit.errors import OutputError

__all__ = ["Checkpoints", "write_atomically", "write_weights"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"epoch-(\d{6})\.ckpt")
_MAGIC = b"edgekit-checkpoint-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears under its name only when it is whole and on disk.

    Raises:
        OutputError: The folder cannot be written, or is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with old or no content
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}. Free some space or choose a writable folder.") from error


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as ``torch.load(path, weights_only=True)`` reads it, the same bytes for equal weights.

    Args:
        state: Parameters and buffers; written contiguous and from the CPU.
        path: Such as ``weights.pt``.

    Raises:
        OutputError: The folder cannot be written, or is full.
    """
    # Cloned, because a tensor with a dimension of one passes for contiguous under several strides, which are written.
    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    write_atomically(path, _packed(plain))


class Checkpoints:
    """The checkpoints of one training run, the newest two of them.

    Each file carries a digest of its content: one that was cut off or damaged is put aside with a note, and the
    former one is used. (PyTorch's own reader does not verify the checksums of its archive.)

    Args:
        folder: Where they lie; created when the first is written.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, epoch: int, fingerprint: str, state: Mapping[str, Any]) -> None:
        """Write the state after an epoch, then remove all but the newest.

        Args:
            epoch: How many epochs are done.
            fingerprint: Of everything that the run's result depends on.
            state: Tensors and plain values only, in dicts, lists and tuples.

        Raises:
            OutputError: The folder cannot be written, or is full.
        """
        payload = _packed({"fingerprint": fingerprint, "state": dict(state)})
        path = self._folder / f"epoch-{epoch:06d}.ckpt"
        write_atomically(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
        for old in self._files()[: -self._keep]:
            old.unlink(missing_ok=True)

    def load(self, fingerprint: str) -> dict[str, Any] | None:
        """Return the newest state that is whole and belongs to this run; None when there is none."""
        for path in reversed(self._files()):
            found = _read(path)
            if found is None:
                _note(f"checkpoint {path.name} is incomplete or damaged; the one before it is used")
            elif found["fingerprint"] != fingerprint:
                _note(f"checkpoint {path.name} belongs to other settings, data or initial weights; it is not used")
            else:
                state: dict[str, Any] = found["state"]
                return state
        return None

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _packed(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Any] | None:
    data = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_BYTES
    payload = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(payload).digest():
        return None
    content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content


def _note(message: str) -> None:
    _log.warning("%s", message)
    process.emit({"type": "note", "stage": "train", "message": message})
