"""Load and run a ``.tflite`` model with LiteRT's interpreter (the kernels and the XNNPACK delegate that phones run)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgekit.contracts import ClosesOnExit
from edgekit.data.feeding import fit_inputs, read_output
from edgekit.errors import ToolError
from edgekit.formats.tflite import profiler
from edgekit.formats.tflite.operators import list_operators
from edgekit.program.tflite import flatbuffer
from edgekit.records import OperatorTime, RuntimeInfo, TensorSpec

Array = NDArray[np.generic]
_STATEFUL = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})


class TfliteSession(ClosesOnExit):
    """A loaded model. The protocol is :class:`edgekit.contracts.Session`.

    State that a model keeps between invocations (variables, fused recurrent layers) is reset before every run: the
    fused LSTM kernel gives another answer on its second run otherwise.
    """

    def __init__(self, path: Path, num_threads: int) -> None:
        model = flatbuffer.read_model(path)
        self.path = path
        self.num_threads = num_threads
        self.inputs: tuple[TensorSpec, ...] = flatbuffer.model_inputs(model)
        self.outputs: tuple[TensorSpec, ...] = flatbuffer.model_outputs(model)
        self._stateful = _keeps_state(model)
        start = time.perf_counter()
        self._interpreter = load_interpreter(path, num_threads)
        self.load_ms: float | None = (time.perf_counter() - start) * 1e3
        self._input_indices = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._output_indices = [detail["index"] for detail in self._interpreter.get_output_details()]
        delegates = ("XNNPACK",) if delegated_nodes(self._interpreter) else ()
        self.runtime = RuntimeInfo(name="LiteRT", version=version("ai-edge-litert"), delegates=delegates)

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs, quantized ones as real numbers (float32).

        Raises:
            DataError: An input has the wrong shape or dtype.
            ToolError: The runtime failed.
        """
        self.prepare(inputs)()
        arrays = [self._interpreter.get_tensor(index) for index in self._output_indices]
        return tuple(read_output(spec, array) for spec, array in zip(self.outputs, arrays, strict=True))

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs and return a function that only executes."""
        fitted = fit_inputs(self.inputs, inputs)
        self._resize(fitted)
        for index, array in zip(self._input_indices, fitted, strict=True):
            self._interpreter.set_tensor(index, array)
        return self._execute_afresh if self._stateful else self._execute

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Time each operator, those inside the XNNPACK delegate included, averaged over ``num_runs``.

        LiteRT's Python interpreter has no profiler. This loads the file again through the compiled-model C API of the
        same library, with the same kernels and delegate.

        Raises:
            UnsupportedError: This version of LiteRT has another C API than the one that edgekit knows.
        """
        fitted = fit_inputs(self.inputs, inputs)
        delegated = frozenset[int]().union(*delegated_nodes(self._interpreter))
        operators = list_operators(flatbuffer.read_model(self.path), delegated=delegated)
        return profiler.profile_operators(self.path, operators, fitted, num_runs=num_runs, num_threads=self.num_threads)

    def close(self) -> None:
        """Free the runtime's memory."""
        self._interpreter = None

    def _resize(self, fitted: Sequence[Array]) -> None:
        current = [tuple(detail["shape"]) for detail in self._interpreter.get_input_details()]
        wanted = [array.shape for array in fitted]
        if current == wanted:
            return
        try:
            for index, shape in zip(self._input_indices, wanted, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            reason = _first_line(error)
            raise ToolError(f"LiteRT cannot resize {self.path.name} to inputs of {wanted}: {reason}") from error

    def _execute(self) -> None:
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ToolError(f"LiteRT failed to run {self.path.name}: {_first_line(error)}") from error

    def _execute_afresh(self) -> None:
        self._interpreter.reset_all_variables()
        self._execute()


def open_session(path: Path, num_threads: int) -> TfliteSession:
    """Load a model.

    Args:
        path: The ``.tflite`` file.
        num_threads: Threads of the kernels and of XNNPACK.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
        ToolError: LiteRT cannot prepare it (an operator that this runtime lacks, for one).
    """
    return TfliteSession(path, num_threads)


def load_interpreter(path: Path, num_threads: int) -> Any:
    """Load a model into an interpreter with LiteRT's default delegate (XNNPACK) and allocate its tensors.

    Raises:
        ToolError: LiteRT cannot prepare it.
    """
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ToolError(f"LiteRT cannot load {path.name}: {_first_line(error)}") from error
    return interpreter


def delegated_nodes(interpreter: Any) -> tuple[frozenset[int], ...]:
    """Find which nodes each delegate partition replaced, from the prepared graph itself.

    The interpreter lists the original nodes and then one ``DELEGATE`` node a partition. A partition holds what lies
    between its outputs and its inputs.

    Returns:
        One set of node positions a partition.
    """
    nodes = interpreter._get_ops_details()
    producer = {int(tensor): node for node in nodes if node["op_name"] != "DELEGATE" for tensor in node["outputs"]}
    return tuple(_between(node["inputs"], node["outputs"], producer) for node in nodes if node["op_name"] == "DELEGATE")


def _between(inputs: Sequence[int], outputs: Sequence[int], producer: dict[int, Any]) -> frozenset[int]:
    stop = {int(tensor) for tensor in inputs}
    waiting, found = [int(tensor) for tensor in outputs], set()
    while waiting:
        node = producer.get(waiting.pop())
        if node is None or node["index"] in found:
            continue
        found.add(node["index"])
        waiting += [int(tensor) for tensor in node["inputs"] if tensor >= 0 and int(tensor) not in stop]
    return frozenset(found)


def _keeps_state(model: Any) -> bool:
    for graph in model.subgraphs:
        if any(tensor.isVariable for tensor in graph.tensors or []):
            return True
        if any(flatbuffer.operator_name(model, operator) in _STATEFUL for operator in graph.operators or []):
            return True
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
