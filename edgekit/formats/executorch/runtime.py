"""The ExecuTorch runtime of this machine, loaded quietly."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from edgekit.errors import ToolError, UnsupportedError


@cache
def runtime() -> Any:
    """Return ``executorch.runtime.Runtime`` with the kernels for quantized operations outside of delegates.

    The wheel keeps those kernels in a library of its own, which registers them when it is loaded; without it a program
    that dequantizes a weight by itself (``w8``, ``int8-dynamic``) does not load.
    """
    with quiet_native("load the ExecuTorch runtime"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bindings announce themselves as experimental
        import executorch.kernels.quantized  # noqa: F401
        from executorch.runtime import Runtime

        return Runtime.get()


@cache
def kernel_names() -> frozenset[str]:
    """Return the operations for which the runtime has a kernel (``aten::add.out``)."""
    return frozenset(runtime().operator_registry.operator_names)


class ThreadPool:
    """The thread pool of the process, which all its programs share.

    A loaded program keeps a pointer to the pool: resizing it under one corrupts memory (runs abort or never return).
    So it is resized only while no program is loaded.
    """

    def __init__(self) -> None:
        self._users = 0

    def acquire(self, count: int) -> None:
        """Take part in a pool of this size until :meth:`release`.

        Raises:
            UnsupportedError: Programs are loaded that use another number of threads.
        """
        runtime()
        from executorch.extension.pybindings import _C

        current = _C._threadpool_get_thread_count()
        if current != count and self._users:
            raise UnsupportedError(
                f"an ExecuTorch session with {count} threads beside one with {current}",
                reason="the runtime has one thread pool a process, which a loaded program does not let go of",
                instead="the same number of threads, a process of its own, or closing the other session first",
            )
        if current != count:
            with quiet_native("set the number of threads"):
                _C._unsafe_reset_threadpool(count)
        self._users += 1

    def release(self) -> None:
        """Leave the pool."""
        self._users -= 1


POOL = ThreadPool()
"""There is one a process, as there is one native pool."""


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
