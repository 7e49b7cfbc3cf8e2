"""Training states on disk: written whole or not at all, checked before they are believed.

Data order, dropout and augmentation derive from the seed and the epoch, and the learning rate from the step, so a
state at the end of an epoch is all that is needed to go on exactly as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit import process
from edgekit.store.atomic import write_bytes

__all__ = ["CheckpointFolder"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"epoch-(\d{6})\.ckpt")
_MAGIC = b"edgekit-checkpoint-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class CheckpointFolder:
    """The checkpoints of one training run, the newest two of them.

    Each file carries a digest of its content: one that was cut off or damaged is put aside with a note, and the
    former one is used.

    Args:
        folder: Where they lie; created when the first is written.
        pack: Turns a dict of what the framework keeps into bytes.
        unpack: Turns the bytes back.
        keep: How many of the newest stay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pack: Callable[[dict[str, Any]], bytes],
        unpack: Callable[[bytes], dict[str, Any]],
        keep: int = 2,
    ) -> None:
        self._folder = folder
        self._pack = pack
        self._unpack = unpack
        self._keep = keep

    def save(self, epoch: int, fingerprint: str, state: Mapping[str, Any]) -> None:
        """Write the state after an epoch, then remove all but the newest.

        Args:
            epoch: How many epochs are done.
            fingerprint: Of everything that the run's result depends on.
            state: What ``pack`` takes: tensors or arrays, and plain values, in dicts, lists and tuples.

        Raises:
            OutputError: The folder cannot be written, or is full.
        """
        payload = self._pack({"fingerprint": fingerprint, "state": dict(state)})
        path = self._folder / f"epoch-{epoch:06d}.ckpt"
        write_bytes(path, _MAGIC + hashlib.sha256(payload).digest() + payload)
        for old in self._files()[: -self._keep]:
            old.unlink(missing_ok=True)

    def load(self, fingerprint: str) -> dict[str, Any] | None:
        """Return the newest state that is whole and belongs to this run; None when there is none."""
        for path in reversed(self._files()):
            payload = _checked_payload(path)
            if payload is None:
                _note(f"checkpoint {path.name} is incomplete or damaged; the one before it is used")
                continue
            found = self._unpack(payload)
            if found["fingerprint"] != fingerprint:
                _note(f"checkpoint {path.name} belongs to other settings, data or initial weights; it is not used")
                continue
            state: dict[str, Any] = found["state"]
            return state
        return None

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _checked_payload(path: Path) -> bytes | None:
    data = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_BYTES
    payload = data[start:]
    return payload if data[:start] == _MAGIC + hashlib.sha256(payload).digest() else None


def _note(message: str) -> None:
    _log.warning("%s", message)
    process.emit({"type": "note", "stage": "train", "message": message})
