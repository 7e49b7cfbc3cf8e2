"""From a module to a graph that can be rewritten, and from a graph to a program."""

from __future__ import annotations

import copy
import inspect
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from edgekit.errors import ModelError

MAX_BATCH = 4096
"""Largest batch of a program whose batch is free: exporters need a bound."""


def capture(module: nn.Module, example_inputs: Sequence[Tensor], *, dynamic_batch: bool = True) -> torch.fx.GraphModule:
    """Record a module as a graph of ATen operations, with its parameters under their own names.

    Args:
        module: In evaluation mode.
        example_inputs: One batch; with ``dynamic_batch`` of any size.
        dynamic_batch: Whether the graph must take any batch size.

    Returns:
        A graph that is called as the module is, and returns what the module returns.

    Raises:
        ModelError: The module's control flow depends on data, it fixes its batch size although a free one was asked
            for, or it does something that cannot be recorded.
    """
    program = _export(module, example_inputs, dynamic_batch=dynamic_batch)
    return program.module(check_guards=False)


def record(module: nn.Module, example_inputs: Sequence[Tensor]) -> torch.fx.GraphModule:
    """Record a module with a free batch size, or with the batch size of the example where it fixes one.

    Raises:
        ModelError: It cannot be recorded.
    """
    copied = copy.deepcopy(module)  # a recorded graph shares its parameters, and training it must not train the module
    copied.eval()
    try:
        return capture(copied, example_inputs)
    except ModelError:
        return capture(copied, example_inputs, dynamic_batch=False)


def export_program(
    graph: torch.fx.GraphModule, example_inputs: Sequence[Tensor], *, dynamic_batch: bool = False
) -> ExportedProgram:
    """Export a graph that :func:`capture` recorded, rewritten and quantized or not.

    Args:
        graph: What to export; it is not changed.
        example_inputs: One batch; unless ``dynamic_batch`` the program takes this batch size only.
        dynamic_batch: Whether the program takes any batch size.

    Returns:
        A program that takes its inputs by position, returns a flat tuple, and holds no tensor that it does not use.

    Raises:
        ModelError: The graph cannot be exported with these inputs.
    """
    # A new GraphModule copies only the tensors that the graph reads, and leaves the hooks of the recorded one behind,
    # which check the inputs against those of the recording.
    plain = torch.fx.GraphModule(graph, _without_structure(graph.graph))
    return _export(plain, example_inputs, dynamic_batch=dynamic_batch)


def _without_structure(graph: torch.fx.Graph) -> torch.fx.Graph:
    flat = torch.fx.Graph()
    returned = flat.graph_copy(graph, {})
    flat.output(tuple(returned) if isinstance(returned, tuple | list) else (returned,))
    return flat


def _export(module: nn.Module, inputs: Sequence[Tensor], *, dynamic_batch: bool) -> ExportedProgram:
    # An image batch of one, or of one channel, that was transposed from NHWC passes for contiguous under strides that
    # Core ML refuses; a clone in the plain format has the plain strides.
    inputs = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in inputs)
    shapes = None
    if dynamic_batch:
        inputs = tuple(_at_least_two(tensor) for tensor in inputs)
        batch = Dim("batch", min=1, max=MAX_BATCH)
        shapes = tuple({0: batch} if tensor.dim() else None for tensor in inputs)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, tuple(inputs), dynamic_shapes=_by_argument(module, shapes))
    except GuardOnDataDependentSymNode as error:
        raise ModelError(
            f"the model cannot be exported: its control flow depends on the data{_place(error)}. An exported graph "
            "has one path; write the choice with torch.where or torch.cond, or take it out of the model"
        ) from error
    except UserError as error:
        if error.error_type is UserErrorType.CONSTRAINT_VIOLATION:
            raise ModelError(
                "the model works with one batch size only: its code holds a constant where the batch size belongs "
                f"(exported with batch {inputs[0].shape[0]}). Use x.shape[0], or export with batch: 1"
            ) from error
        raise ModelError(f"the model cannot be exported{_place(error)}: {_first_line(error)}") from error
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        raise ModelError(
            f"the model cannot be exported{_place(error)}: {type(error).__name__}: {_first_line(error)}. "
            "Only tensor operations of PyTorch can be recorded, no numpy, no input or output"
        ) from error


def _by_argument(module: nn.Module, shapes: tuple[dict[int, Dim] | None, ...] | None) -> tuple[Any, ...] | None:
    """``forward(*args)`` takes one argument that is a tuple, and its dynamic shapes are nested alike."""
    if shapes is None:
        return None
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return (shapes,) if kinds and kinds[0] is inspect.Parameter.VAR_POSITIONAL else shapes


def _at_least_two(tensor: Tensor) -> Tensor:
    """torch.export takes a size of 1 for a constant: record with a batch of 2."""
    if tensor.dim() == 0 or tensor.shape[0] > 1:
        return tensor
    return tensor.repeat(2, *[1] * (tensor.dim() - 1))


def _place(error: BaseException) -> str:
    """The innermost line of code outside the libraries, where the error came from."""
    libraries = Path(torch.__file__).parent.parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and libraries not in path.parents and path != Path(__file__) and frame.line:
            return f" (at {path.name}:{frame.lineno}, `{frame.line}`)"
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export prints the whole graph as a warning when it refuses one."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    export = logging.getLogger("torch.export")
    levels = logger.level, export.level
    logger.setLevel(logging.CRITICAL)
    export.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # nn.LSTM and nn.GRU set their list of weights anew when they are called; the list holds the same tensors.
            warnings.filterwarnings("ignore", r"The tensor attributes? .*assigned during export", UserWarning)
            # PyTorch's own use of what it is about to remove from PyTorch.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(levels[0])
        export.setLevel(levels[1])


def move_constants(graph: torch.fx.GraphModule, device: str) -> None:
    """Let the operations that make tensors (``zeros``, ``arange``) make them on a device.

    A recorded graph has the device of the recording written into it; ``Module.to`` moves its tensors only.
    """
    for node in graph.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
    graph.recompile()
