"""Where and in which arithmetic training runs: what ``auto`` becomes, and data-parallel processes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from torch import nn

from edgekit.errors import RecipeError
from edgekit.recipe.schema import TrainSection

__all__ = ["Placement", "deterministic_algorithms", "is_first_process", "open_fabric", "place", "to_memory_format"]

Autocast = Literal["fp32", "bf16", "fp16"]
_deterministic: Any = torch.utils.deterministic  # its attributes are properties of the module object
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What every ``auto`` of the training settings became.

    Attributes:
        device: ``cpu``, ``cuda:0`` ...
        autocast: The arithmetic of matrix multiplications and convolutions.
        compile: Whether the training step's forward goes through ``torch.compile``.
        channels_last: Whether images and convolution weights lie channels-last in memory.
        processes: Data-parallel processes that take part.
    """

    device: str
    autocast: Autocast
    compile: bool
    channels_last: bool
    processes: int


def place(settings: TrainSection, module: nn.Module | None = None) -> Placement:
    """Resolve the ``auto`` settings for this machine and module.

    On CUDA: bf16 where the GPU has it (fp16 elsewhere), compiled, channels-last for convolutional networks. On CPU:
    fp32, uncompiled, contiguous. Exported graphs (quantization-aware training) are neither compiled nor moved to
    channels-last by ``auto``: their recorded ``view`` operations hold for the recorded memory layout only.

    Raises:
        RecipeError: The device does not exist here, or cannot compute in the precision that was asked for.
    """
    device = _device(settings.device)
    on_gpu = device.type == "cuda"
    eager = not isinstance(module, torch.fx.GraphModule)
    convolutional = module is not None and any(
        isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in module.modules()
    )
    return Placement(
        device=str(device),
        autocast=_autocast(settings.precision, device),
        compile=(on_gpu and eager) if settings.compile == "auto" else settings.compile,
        channels_last=(
            (on_gpu and eager and convolutional) if settings.channels_last == "auto" else settings.channels_last
        ),
        processes=_processes(settings.devices),
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise RecipeError(f"train.device: expected auto, cpu, cuda or cuda:<index>; received {name!r}.")
    if kind == "cpu":
        return torch.device("cpu")
    # Under torchrun each process of this machine takes the GPU of its own local rank.
    wanted = int(index) if index else int(os.environ.get("LOCAL_RANK", "0"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted >= count:
        raise RecipeError(
            f"train.device: expected one of the {count} CUDA devices that PyTorch sees on this machine; "
            f"received {name!r}. Write device: auto to take a GPU only where there is one."
        )
    return torch.device("cuda", wanted)


def _autocast(wanted: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Autocast:
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise RecipeError(
                "train.precision: fp16 needs a GPU (on a CPU it is slower than fp32 and overflows); "
                "received device cpu. Write precision: auto, bf16 or fp32."
            )
        return wanted
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _processes(wanted: int) -> int:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted > 1 and started == 1:
        # The batch size counts all processes together, so one process reaches the same result, only later.
        _log.warning("train.devices is %d, but this run was not started by torchrun: one process is used", wanted)
    return started


class _UncastInputs(MixedPrecision):
    """Autocast that leaves the model's inputs alone.

    Fabric's own casts every float input to the 16-bit type before the model sees it, which loses what a first
    normalization or an input quantizer needs; autocast itself casts at each operation that gains from it.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the inputs as they are."""
        return data


def is_first_process() -> bool:
    """Say whether this process is the one that writes: the first, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def open_fabric(placement: Placement) -> Fabric:
    """Open the device, and the process group where torchrun started several processes.

    The world size is torchrun's; nothing is spawned from here.
    """
    device = torch.device(placement.device)
    plugin = (
        Precision()
        if placement.autocast == "fp32"
        else _UncastInputs("bf16-mixed" if placement.autocast == "bf16" else "16-mixed", device.type)
    )
    parallel = placement.processes > 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(placement.processes)))
    with warnings.catch_warnings():
        # Fabric warns when it starts under SLURM or finds an unused GPU; the placement above was decided on purpose.
        warnings.simplefilter("ignore", UserWarning)
        fabric = Fabric(
            accelerator=device.type,
            devices=local if parallel or device.type == "cpu" else [device.index or 0],
            num_nodes=max(placement.processes // local, 1),
            strategy="ddp" if parallel else "auto",
            plugins=[plugin],
        )
        fabric.launch()
    return fabric


def to_memory_format(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay a module's rank-4 parameters and buffers out, in place."""
    module.to(memory_format=memory_format)  # type: ignore[call-overload] # torch's stub lacks this documented form


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Have PyTorch take its deterministic algorithms, and put the former choice back afterwards.

    The same seed then gives the same weights, on a GPU too. An operation that has no deterministic algorithm still
    runs (PyTorch warns once); nothing else about the results changes.
    """
    former = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = _deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=True)
    _deterministic.fill_uninitialized_memory = False  # costs time, and nothing here reads what it did not write
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(former[0], warn_only=former[1])
        _deterministic.fill_uninitialized_memory = fills
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
