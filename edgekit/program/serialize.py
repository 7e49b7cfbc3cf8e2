"""Save and load programs (``.pt2``), the same bytes for the same program."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.ao.quantization.fx import _decomposed as _quantized_operators  # noqa: F401 - registers quantized_decomposed
from torch.export import ExportedProgram

from edgekit.errors import ModelError, UntrustedCodeError

_NODE_FACTS = ("val", "tensor_meta", "nn_module_stack")
"""What a saved node says of itself. Stack traces and origins hold the paths of this machine's files: left out."""


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program, whole or not at all.

    The bytes depend on the program only: not on the path, and not on where the model's code lies, whose file names
    torch.export would keep in every node. The nodes of ``program`` lose them.

    Args:
        program: What to save.
        path: The ``.pt2`` file; its folder must exist.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta = {fact: node.meta[fact] for fact in _NODE_FACTS if fact in node.meta}
    buffer = io.BytesIO()  # given a path, the archive's inner folder would carry the file's name
    torch.export.save(program, buffer)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(buffer.getbuffer())
    partial.replace(path)


def load_program(path: Path, *, trust: bool = False) -> ExportedProgram:
    """Read a program; the quantize and dequantize operators that it may use are registered.

    Args:
        path: The ``.pt2`` file.
        trust: Allow pickles inside it that execute code when read.

    Raises:
        ModelError: The file is missing, is not a program, is cut off, or was written by another version of torch.
        UntrustedCodeError: It holds pickles that would execute code, and ``trust`` is not set.
    """
    if not path.is_file():
        raise ModelError(f"expected a program (.pt2); there is no file {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"expected a program (.pt2, written by torch.export.save) in {str(path)!r}; the file is truncated or of "
            "another kind. Export the model again"
        )
    try:
        with nullcontext() if trust else _plain_tensors_only():
            return torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise UntrustedCodeError(
            f"loading {str(path)!r} would execute code that it carries. If you trust where it comes from, allow it "
            "with --trust (model.trust in a recipe); better, export the model again without custom objects"
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError, AssertionError, EOFError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{str(path)!r} cannot be read as a program of torch {torch.__version__}: {reason}. "
            "Export the model again with this version of torch"
        ) from error


@contextmanager
def _plain_tensors_only() -> Iterator[None]:
    """Let torch.load refuse code, also where torch.export asks it to allow code.

    torch.export.load reads sample inputs and pickled weights with ``weights_only=False`` when the safe way fails; this
    variable of torch overrides that.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
