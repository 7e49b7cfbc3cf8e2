"""Load and run an ``.onnx`` model with ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgekit.contracts import ClosesOnExit
from edgekit.data.feeding import fit_inputs
from edgekit.errors import ToolError
from edgekit.formats.onnx.model_file import read_model, specs_of
from edgekit.records import OperatorTime, RuntimeInfo, TensorSpec

Array = NDArray[np.generic]
PROVIDER = "CPUExecutionProvider"
_WARMUP_RUNS = 3
_RUNTIME_ERRORS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented, ort_errors.RuntimeException, ort_errors.EPFail, RuntimeError,
)  # fmt: skip


class OnnxSession(ClosesOnExit):
    """A loaded model. The protocol is :class:`edgekit.contracts.Session`."""

    def __init__(self, path: Path, num_threads: int) -> None:
        model = read_model(path)
        self.path = path
        self.num_threads = num_threads
        self.inputs: tuple[TensorSpec, ...] = specs_of(model.graph.input)
        self.outputs: tuple[TensorSpec, ...] = specs_of(model.graph.output)
        start = time.perf_counter()
        self._session = load_runtime(path, session_options(num_threads))
        self.load_ms: float | None = (time.perf_counter() - start) * 1e3
        self.runtime = RuntimeInfo(name="ONNX Runtime", version=version("onnxruntime"), delegates=(PROVIDER,))

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs.

        Raises:
            DataError: An input has the wrong shape or dtype.
            ToolError: The runtime failed.
        """
        feed = self._feed(inputs)
        try:
            outputs = self._session.run([spec.name for spec in self.outputs], feed)
        except _RUNTIME_ERRORS as error:
            raise ToolError(f"ONNX Runtime failed to run {self.path.name}: {_first_line(error)}") from error
        return tuple(np.asarray(output) for output in outputs)

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs and return a function that only executes."""
        binding = self._session.io_binding()
        for name, array in self._feed(inputs).items():
            binding.bind_cpu_input(name, array)
        for spec in self.outputs:
            binding.bind_output(spec.name, "cpu")
        session = self._session

        def execute() -> None:
            session.run_with_iobinding(binding)

        return execute

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Time each operator of the graph as ONNX Runtime optimized it, averaged over ``num_runs``.

        Raises:
            DataError: An input has the wrong shape or dtype.
            ToolError: The runtime failed.
        """
        feed = self._feed(inputs)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            options = session_options(self.num_threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = load_runtime(self.path, options)
            for _ in range(_WARMUP_RUNS + num_runs):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return summarize(events, num_runs)

    def close(self) -> None:
        """Free the runtime's memory."""
        self._session = None

    def _feed(self, inputs: Sequence[Array]) -> dict[str, Array]:
        fitted = fit_inputs(self.inputs, inputs)
        return {spec.name: array for spec, array in zip(self.inputs, fitted, strict=True)}


def open_session(path: Path, num_threads: int) -> OnnxSession:
    """Load a model.

    Args:
        path: The ``.onnx`` file.
        num_threads: Threads within an operator; operators run one after another.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
        ToolError: ONNX Runtime cannot prepare it.
    """
    return OnnxSession(path, num_threads)


def session_options(num_threads: int) -> onnxruntime.SessionOptions:
    """Return options under which runs repeat: fixed threads, sequential, deterministic kernels.

    Kernels are the ones that an application gets by default. On x86 processors without VNNI these add pairs of int8
    products in 16 bits and may saturate, which parity then shows. The exact mode (``session.x64quantprecision``) is not
    set: it would hide that, and in ONNX Runtime 1.32 it fails to load models whose weights share a zero point.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    return options


def load_runtime(path: Path, options: onnxruntime.SessionOptions) -> Any:
    """Load a model into ONNX Runtime's CPU provider.

    Raises:
        ToolError: ONNX Runtime cannot prepare it.
    """
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
    except _RUNTIME_ERRORS as error:
        raise ToolError(f"ONNX Runtime cannot load {path.name}: {_first_line(error)}") from error


def summarize(events: Sequence[dict[str, Any]], num_runs: int) -> tuple[OperatorTime, ...]:
    """Average ONNX Runtime's profile over its last runs.

    Args:
        events: Its JSON document; node events carry ``dur`` in microseconds.
        num_runs: Runs to average; earlier ones are warm-up.
    """
    durations: dict[str, list[float]] = {}
    types: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            durations.setdefault(name, []).append(float(event["dur"]))
            types[name] = event["args"]["op_name"]
    times_ms = {name: float(np.mean(found[-num_runs:])) / 1e3 for name, found in durations.items()}
    total = sum(times_ms.values()) or 1.0
    return tuple(
        OperatorTime(name=name, type=types[name], delegated=True, time_ms=time_ms, share=time_ms / total)
        for name, time_ms in times_ms.items()
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
