"""The ExecuTorch runtime of this machine, loaded quietly."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from edgekit.errors import ToolError


@cache
def runtime() -> Any:
    """Return ``executorch.runtime.Runtime``; its kernels for quantized operations are linked in."""
    with quiet_native("load the ExecuTorch runtime"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bindings announce themselves as experimental
        from executorch.runtime import Runtime

        return Runtime.get()


@cache
def kernel_names() -> frozenset[str]:
    """Return the operations for which the runtime has a kernel (``aten::add.out``)."""
    return frozenset(runtime().operator_registry.operator_names)


def set_threads(count: int) -> None:
    """Set the size of the thread pool, which all programs of the process share."""
    runtime()
    from executorch.extension.pybindings import _C

    if _C._threadpool_get_thread_count() != count:
        with quiet_native("set the number of threads"):
            _C._unsafe_reset_threadpool(count)


@contextmanager
def quiet_native(what: str) -> Iterator[None]:
    """Keep what native code writes to standard error; it becomes part of the message when the block fails.

    Args:
        what: What the block does, for the message.

    Raises:
        ToolError: The block raised ``RuntimeError``, which the bindings do for every failure.
    """
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except RuntimeError as error:
            kept.seek(0)
            lines = kept.read().decode(errors="replace").strip().splitlines()
            raise ToolError(f"ExecuTorch could not {what}: {error} {' '.join(lines[-3:])}".strip()) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
