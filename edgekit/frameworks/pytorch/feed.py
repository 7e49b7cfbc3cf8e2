"""Batches on their way to the device: which samples, in which order, laid out how."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from edgekit.data.dataset import Array, ArraySplit, Split
from edgekit.frameworks.training import Indices, batches_of, epoch_order

__all__ = ["Batch", "Feed", "Indices", "as_tensors", "epoch_order", "share_of_rank"]

Batch = tuple[tuple[Tensor, ...], Tensor | None]

RESIDENT_LIMIT_BYTES = 1 << 30
"""Training data up to this size are kept on the GPU whole: small models train faster than a CPU can gather batches."""

PREFETCH_BATCHES = 3
"""Batches read ahead of the device, enough to hide the time of one slow read."""


def share_of_rank(order: Indices, batch_size: int, rank: int, processes: int) -> list[Indices]:
    """Cut an order into batches and return this process's equal share of each.

    Args:
        order: Sample indices of the epoch.
        batch_size: Samples a step, all processes together.
        rank: This process, from 0.
        processes: How many there are.

    Raises:
        DataError: There are fewer samples than processes, or the batch size is no multiple of the processes.
    """
    whole = batches_of(order, batch_size, processes)
    share = len(whole[0]) // processes
    return [batch[rank * share : (rank + 1) * share] for batch in whole]


def as_tensors(inputs: Sequence[Array], layout: str | None = None) -> tuple[Tensor, ...]:
    """Turn a batch of numpy inputs into what a PyTorch model takes.

    Args:
        inputs: Arrays, batch in axis 0. float64 and float16 become float32; integers stay.
        layout: ``NHWC``: rank-4 arrays are turned into NCHW. Otherwise nothing is moved.
    """
    tensors = []
    for array in inputs:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if tensor.dtype in (torch.float64, torch.float16):
            tensor = tensor.float()
        if layout == "NHWC" and tensor.dim() == 4:
            tensor = tensor.permute(0, 3, 1, 2).contiguous()
        tensors.append(tensor)
    return tuple(tensors)


class Feed:
    """Batches of one split, on the device.

    Args:
        split: The samples.
        device: Where batches are needed.
        layout: The data's layout (``NHWC`` images are turned).
        channels_last: Lay rank-4 float inputs channels-last in memory.
        check: Called with the numpy labels of every batch before they leave the CPU; raises when they are wrong.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device,
        *,
        layout: str | None = None,
        channels_last: bool = False,
        check: Callable[[Array | None], None] | None = None,
    ) -> None:
        self._split = split
        self._device = device
        self._layout = layout
        self._channels_last = channels_last
        self._check = check
        self._resident = self._load_resident()

    def __len__(self) -> int:
        return len(self._split)

    def batches(self, indices: Sequence[Indices]) -> Iterator[Batch]:
        """Yield the batches that these sample indices name, one after another."""
        if self._resident is not None:
            yield from map(self._gather, indices)
        elif isinstance(self._split, ArraySplit) and self._device.type == "cpu":
            # A gather in memory is quicker than handing it to a thread.
            yield from (self._move(self._read(batch)) for batch in indices)
        else:
            with closing(self._prefetched(indices)) as batches:
                yield from map(self._move, batches)

    def _load_resident(self) -> Batch | None:
        if self._device.type != "cuda" or not isinstance(self._split, ArraySplit):
            return None
        arrays = [*self._split.inputs, *([] if self._split.labels is None else [self._split.labels])]
        if sum(array.nbytes for array in arrays) > RESIDENT_LIMIT_BYTES:
            return None
        return self._move(self._read(np.arange(len(self._split))), lay_out=False)

    def _read(self, indices: Indices) -> Batch:
        inputs, labels = self._split.batch(indices)
        if self._check is not None:
            self._check(labels)
        return as_tensors(inputs, self._layout), None if labels is None else _label_tensor(labels)

    def _gather(self, indices: Indices) -> Batch:
        inputs, labels = self._resident or ((), None)
        index = torch.from_numpy(indices).pin_memory().to(self._device, non_blocking=True)
        picked = tuple(self._lay_out(tensor.index_select(0, index)) for tensor in inputs)
        return picked, None if labels is None else labels.index_select(0, index)

    def _prefetched(self, indices: Sequence[Indices]) -> Generator[Batch, None, None]:
        def load(batch: Indices) -> Batch:
            inputs, labels = self._read(batch)
            if self._device.type == "cuda":
                return tuple(t.pin_memory() for t in inputs), None if labels is None else labels.pin_memory()
            return inputs, labels

        with ThreadPoolExecutor(1) as pool:
            waiting: deque[Future[Batch]] = deque()
            try:
                for batch in indices:
                    waiting.append(pool.submit(load, batch))
                    if len(waiting) > PREFETCH_BATCHES:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _move(self, batch: Batch, lay_out: bool = True) -> Batch:
        inputs = tuple(tensor.to(self._device, non_blocking=True) for tensor in batch[0])
        labels = None if batch[1] is None else batch[1].to(self._device, non_blocking=True)
        return (tuple(map(self._lay_out, inputs)) if lay_out else inputs), labels

    def _lay_out(self, tensor: Tensor) -> Tensor:
        if self._channels_last and tensor.dim() == 4 and tensor.is_floating_point():
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def _label_tensor(labels: Array) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(labels))
    return tensor.float() if tensor.is_floating_point() else tensor.long()
