"""PyTorch's training states and weights on disk."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.frameworks.checkpoints import CheckpointFolder
from edgekit.store.atomic import write_bytes

__all__ = ["Checkpoints", "write_weights"]


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
    write_bytes(path, _packed(plain))


class Checkpoints(CheckpointFolder):
    """The checkpoints of one training run: tensors and plain values, read back with ``weights_only``.

    Their digest matters: PyTorch's own reader does not verify the checksums of its archive.

    Args:
        folder: Where they lie; created when the first is written.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        super().__init__(folder, pack=_packed, unpack=_unpacked, keep=keep)


def _packed(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _unpacked(payload: bytes) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return content
