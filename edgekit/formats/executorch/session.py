"""Run a ``.pte`` file."""

from __future__ import annotations

import importlib.metadata
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.contracts import ClosesOnExit
from edgekit.data.feeding import fit_inputs
from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.formats.executorch.container import PteFile, read_pte, refusing_damage
from edgekit.formats.executorch.inspect import tensor_specs
from edgekit.formats.executorch.runtime import POOL, quiet_native, runtime
from edgekit.records import OperatorTime, RuntimeInfo

Array = NDArray[np.generic]
_TRACE_BYTES = 64 * 2**20


class ExecutorchSession(ClosesOnExit):
    """A loaded program: see ``edgekit.contracts.Session``.

    The number of threads is that of the process: the runtime has one thread pool.

    Args:
        path: The file.
        num_threads: Threads of XNNPACK.

    Raises:
        ArtifactError: The file is damaged.
        UnsupportedError: It needs a delegate that this machine does not have, or another number of threads than the
            sessions that are open.
        ToolError: The runtime refuses it.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        file = read_pte(path)
        self._path = path
        self._check_delegates(file)
        self._name = file.plan.name
        with refusing_damage(path):
            self.inputs = tensor_specs(file, "input")
            self.outputs = tensor_specs(file, "output")
        POOL.acquire(num_threads)
        start = time.perf_counter()
        try:
            self._program, self._method = self._load(trace=False)
        except BaseException:
            POOL.release()
            raise
        self.load_ms: float | None = (time.perf_counter() - start) * 1e3
        delegates = tuple(sorted({delegate.id for delegate in file.plan.delegates}))
        version = importlib.metadata.version("executorch")
        self.runtime = RuntimeInfo(name="ExecuTorch", version=version, delegates=delegates)

    def _check_delegates(self, file: PteFile) -> None:
        available = set(runtime().backend_registry.registered_backend_names)
        missing = sorted({delegate.id for delegate in file.plan.delegates} - available)
        if missing:
            raise UnsupportedError(
                f"running {self._path.name} on this machine",
                reason=f"it needs the delegate {', '.join(missing)}; here is {', '.join(sorted(available))}",
                instead="a device that has it, or the xnnpack backend",
            )

    def _load(self, *, trace: bool) -> tuple[Any, Any]:
        with quiet_native(f"load {self._path.name}"):
            program = runtime().load_program(
                self._path, enable_etdump=trace, debug_buffer_size=_TRACE_BYTES if trace else 0
            )
            method = program.load_method(self._name)
        if method is None:
            raise ToolError(f"ExecuTorch loaded no method {self._name!r} from {self._path.name}")
        return program, method

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once; see ``Session.run``."""
        tensors = self._tensors(inputs)
        with quiet_native(f"run {self._path.name}"):
            outputs = self._method.execute(tensors)
        return tuple(_array(output) for output in outputs)

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs; see ``Session.prepare``."""
        tensors = self._tensors(inputs)
        method = self._method._method
        with quiet_native(f"feed {self._path.name}"):
            method.set_inputs(tensors)

        def execute() -> None:
            # The runtime plans the memory of inputs together with that of intermediate results, so that one inference
            # may overwrite what the next would read: with token ids that ends in an index out of range.
            method.set_inputs(tensors)
            method.execute()

        return execute

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Time each kernel, those inside XNNPACK included; see ``Session.operator_times``.

        XNNPACK reports whole microseconds, so that small operations show zero in a few runs.
        """
        tensors = self._tensors(inputs)
        program, method = self._load(trace=True)
        with quiet_native(f"trace {self._path.name}"):
            for _ in range(num_runs):
                method.execute(tensors)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            trace = Path(folder) / "trace.etdp"
            program.write_etdump_result_to_file(str(trace), str(Path(folder) / "debug.bin"))
            return _read_trace(trace)

    def _tensors(self, inputs: Sequence[Array]) -> list[torch.Tensor]:
        fitted = fit_inputs(self.inputs, inputs)
        for spec, array in zip(self.inputs, fitted, strict=True):
            if spec.shape[:1] == (None,) and array.shape[0] > self._largest_batch:
                raise DataError(
                    f"input {spec.name!r}: the program was exported for batches up to {self._largest_batch}; "
                    f"received {array.shape[0]}"
                )
        return [torch.from_numpy(np.array(array)) for array in fitted]  # a copy: the runtime may hold on to it

    @property
    def _largest_batch(self) -> int:
        sizes = [self._method.metadata.input_tensor_meta(place).sizes() for place in range(len(self.inputs))]
        return max(int(size[0]) for size in sizes if size)

    def close(self) -> None:
        """Free the program's memory."""
        if self._program is not None:
            self._method = self._program = None
            POOL.release()


def open_session(path: Path, num_threads: int) -> ExecutorchSession:
    """Load a ``.pte`` file.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
        UnsupportedError: It needs a delegate that this machine does not have.
        ToolError: The runtime refuses it.
    """
    return ExecutorchSession(path, num_threads)


def _array(output: Any) -> Array:
    if isinstance(output, torch.Tensor):
        return output.detach().numpy().copy()
    return np.asarray(output)


def _read_trace(path: Path) -> tuple[OperatorTime, ...]:
    """Average the events of a trace: kernels of delegates, and calls of portable kernels."""
    from executorch.devtools import Inspector

    times: dict[tuple[int, str], float] = defaultdict(float)
    delegated: dict[tuple[int, str], bool] = {}
    try:
        blocks = Inspector(etdump_path=str(path)).event_blocks
    except (subprocess.CalledProcessError, OSError) as error:  # it reads the trace with a program of its own, flatc
        raise ToolError(f"ExecuTorch's Inspector could not read the trace: {error}") from error
    for block in blocks:
        if block.name != "Execute":
            continue
        for event in block.events:
            is_kernel = event.name.startswith(_KERNEL_PREFIX)
            if event.perf_data is None or not (event.is_delegated_op or is_kernel):
                continue
            key = (event._instruction_id, event.name.removeprefix(_KERNEL_PREFIX))
            times[key] += float(event.perf_data.avg)
            delegated[key] = bool(event.is_delegated_op)
    total = sum(times.values()) or 1.0
    return tuple(
        OperatorTime(
            name=f"{instruction}:{name}",
            type=name.split(" #")[0],
            delegated=delegated[instruction, name],
            time_ms=time,
            share=time / total,
        )
        for (instruction, name), time in times.items()
    )


_KERNEL_PREFIX = "native_call_"
