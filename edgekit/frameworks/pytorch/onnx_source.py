"""ONNX files as PyTorch modules, through onnx2torch."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.errors import MissingToolError, ModelError
from edgekit.frameworks.pytorch.onnx_opset import with_known_operations


def load_onnx(path: Path) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Load an ONNX model.

    Args:
        path: The ``.onnx`` file, with its external data beside it where it has any.

    Returns:
        The module, and zeros of its inputs' shapes (free sizes are 1).

    Raises:
        ModelError: The file is truncated or not valid, or it holds an operation that has no PyTorch counterpart.
        MissingToolError: onnx or onnx2torch is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError

        with _without_torchvision():
            from onnx2torch import convert
    except ImportError as error:
        raise MissingToolError(f"ONNX models need the extra edgekit[onnx]: {error}", stage="load") from error
    try:
        onnx.checker.check_model(path, full_check=True)
        model = with_known_operations(onnx.load(path))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, DecodeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{str(path)!r} is truncated or no valid ONNX model: {reason}") from error
    try:
        module: nn.Module = convert(model)
    except (NotImplementedError, LookupError) as error:  # LookupError: a value that an unknown pattern leaves unnamed
        raise ModelError(
            f"{str(path)!r} holds an operation that cannot be turned into PyTorch: {error}. "
            "Export the original PyTorch model as .pt2 instead"
        ) from error
    return module, tuple(_example(value) for value in _inputs(model))


def _inputs(model: object) -> Iterator[object]:
    graph = model.graph  # type: ignore[attr-defined]
    initializers = {tensor.name for tensor in graph.initializer}
    return (value for value in graph.input if value.name not in initializers)


def _example(value: object) -> Tensor:
    import onnx

    tensor = value.type.tensor_type  # type: ignore[attr-defined]
    shape = [dimension.dim_value or 1 for dimension in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return torch.from_numpy(np.zeros(shape, dtype))


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Stand an empty torchvision in while onnx2torch is imported.

    onnx2torch imports torchvision for two detection operations (NMS, RoiAlign); a torchvision that does not match the
    installed torch fails at import and would take every other model with it.
    """
    names = ("torchvision", "torchvision.ops")
    kept: dict[str, types.ModuleType | None] = {name: sys.modules.get(name) for name in names}
    stand_ins = {name: types.ModuleType(name) for name in names}
    for name, module in stand_ins.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    stand_ins["torchvision"].ops = stand_ins["torchvision.ops"]  # type: ignore[attr-defined]
    stand_ins["torchvision.ops"].roi_align = None  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, former in kept.items():
            if former is None:
                del sys.modules[name]
            else:
                sys.modules[name] = former
