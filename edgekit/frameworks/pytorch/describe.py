"""What a source model takes and returns: names, shapes, dtypes, size, digest."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.data.dataset import Dataset
from edgekit.data.sources import load_dataset
from edgekit.errors import DataError, ModelError
from edgekit.frameworks.pytorch.capture import capture
from edgekit.frameworks.pytorch.feed import as_tensors
from edgekit.frameworks.pytorch.load import Source, load_source
from edgekit.frameworks.requests import ModelRequest
from edgekit.program.graph import module_stack
from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.records import SourceModel, TensorSpec

_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What a module raises when it is fed something that it was not made for."""


def describe(request: ModelRequest) -> SourceModel:
    """Load a model, say what it is, and make sure that it can be exported: before any training.

    Raises:
        ModelError: It cannot be loaded or exported, or nothing says what its inputs are.
        DataError: It cannot take the data's samples.
        RecipeError: A layer rule of the request matches no layer.
    """
    source = load_source(request.model)
    for place, rules in request.rules.items():
        select_layers(source_layers(source.module), rules, place)
    dataset = None if request.data is None else load_dataset(request.data)
    described = describe_source(source, dataset, name=request.model.source)
    capture(source.module, sample_inputs(source, dataset), dynamic_batch=False)
    return described


def describe_source(source: Source, dataset: Dataset | None, *, name: str) -> SourceModel:
    """Describe a loaded model; see :func:`describe`.

    Args:
        source: The model.
        dataset: Where the input signature comes from; None: the source's own example inputs.
        name: As the user wrote it.
    """
    inputs = sample_inputs(source, dataset)
    outputs = run_outputs(source.module, inputs)
    names = input_names(source.module, dataset, len(inputs))
    tensors = source.module.state_dict()
    return SourceModel(
        framework="pytorch",
        source=name,
        digest=digest_of(tensors),
        parameters=sum(parameter.numel() for parameter in source.module.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        inputs=tuple(
            tensor_spec(name, tensor, layout=layout_of(tensor, dataset))
            for name, tensor in zip(names, inputs, strict=True)
        ),
        outputs=tuple(tensor_spec(name, tensor) for name, tensor in outputs),
        layers=tuple((layer.name, layer.type) for layer in source_layers(source.module)),
    )


def source_layers(module: nn.Module) -> tuple[LayerInfo, ...]:
    """List the layers of a model as rules see them, containers included; those of an exported graph as recorded."""
    found = {name: LayerInfo(name, type(part).__name__) for name, part in module.named_modules() if name}
    if isinstance(module, torch.fx.GraphModule):
        for node in module.graph.nodes:
            for path, kind in module_stack(node):
                if path:
                    found[path] = LayerInfo(path, kind)
    return tuple(found.values())


def sample_inputs(source: Source, dataset: Dataset | None) -> tuple[Tensor, ...]:
    """Return inputs of batch 1, as the model takes them (NCHW).

    Raises:
        ModelError: Neither data nor source give any.
    """
    if dataset is not None:
        return as_tensors(dataset.sample(), dataset.layout)
    if source.example_inputs:
        return source.example_inputs
    raise ModelError(
        "nothing says what the model takes: expected a data section, or a callable that returns (module, "
        "example_inputs). Add one of them"
    )


def input_names(module: nn.Module, dataset: Dataset | None, count: int) -> tuple[str, ...]:
    """Name a model's inputs: as the data say, else as the parameters of ``forward`` are called, else by number.

    Raises:
        DataError: The data have another number of inputs than the model.
    """
    if dataset is not None and dataset.input_names:
        return dataset.input_names
    parameters = inspect.signature(module.forward).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    positional = [
        parameter for parameter in parameters if parameter.kind in (0, 1)
    ]  # 0: positional only, 1: positional or keyword
    required = [parameter.name for parameter in positional if parameter.default is parameter.empty]
    if not open_ended and not len(required) <= count <= len(positional):
        raise DataError(
            f"the model's forward takes {len(required)} inputs ({', '.join(required)}); the data give {count}"
        )
    if len(positional) < count:
        return tuple(f"input_{index}" for index in range(count))
    return tuple(parameter.name for parameter in positional[:count])


def run_outputs(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[tuple[str, Tensor], ...]:
    """Run a module and return its outputs, named and flat.

    Raises:
        DataError: The module refuses such inputs.
        ModelError: It returns something that holds no tensors.
    """
    try:
        with torch.no_grad():
            returned = module(*inputs)
    except _REFUSALS as error:
        given = ", ".join(f"{_dtype_name(tensor)} {list(tensor.shape)}" for tensor in inputs)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the model does not take the data's samples: it received {given} and raised {type(error).__name__}: "
            f"{reason}. Check the shapes, dtypes and layout of the data"
        ) from error
    named = tuple(flatten_outputs(returned))
    if not named:
        raise ModelError(
            f"expected the model to return a tensor, or a tuple, list or dict of tensors; "
            f"received {type(returned).__name__}"
        )
    return named


def flatten_outputs(returned: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Walk what a model returned, in torch's pytree order; dict keys and positions make the names.

    Example:
        >>> [name for name, _ in flatten_outputs({"logits": torch.zeros(1), "boxes": [torch.zeros(1)] * 2})]
        ['logits', 'boxes_0', 'boxes_1']
    """
    if isinstance(returned, Tensor):
        yield name or "output", returned
        return
    if isinstance(returned, Mapping):
        pairs: Sequence[tuple[object, Any]] = list(returned.items())
    elif isinstance(returned, tuple) and hasattr(returned, "_fields"):
        pairs = list(zip(returned._fields, returned, strict=True))
    elif isinstance(returned, tuple | list):
        single = len(returned) == 1 and not name
        pairs = [("" if single else index, value) for index, value in enumerate(returned)]
    else:
        return
    for key, value in pairs:
        part = f"output_{key}" if isinstance(key, int) and not name else str(key)
        yield from flatten_outputs(value, f"{name}_{part}" if name else part)


def tensor_spec(name: str, tensor: Tensor, *, dynamic_batch: bool = False, layout: str | None = None) -> TensorSpec:
    """Describe a tensor; with ``dynamic_batch`` its first size is free."""
    shape: tuple[int | None, ...] = tuple(tensor.shape)
    if dynamic_batch and shape:
        shape = (None, *shape[1:])
    return TensorSpec(name=name, dtype=_dtype_name(tensor), shape=shape, layout=layout)


def layout_of(tensor: Tensor, dataset: Dataset | None) -> str | None:
    """``NCHW`` for the images of a dataset that has a layout, else None."""
    return "NCHW" if dataset is not None and dataset.layout is not None and tensor.dim() == 4 else None


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
