"""Times of single operators, from the profiler of LiteRT's C API.

LiteRT's Python interpreter has no profiler. The library in the wheel exports the compiled-model C API, whose profiler
records every kernel and every operation inside the XNNPACK delegate (``litert/c/litert_profiler.h``,
``litert/c/litert_profiler_event.h``). Neither is bound to Python, and the layout of an event is no stable interface:
other versions than those in ``KNOWN_VERSIONS`` are refused instead of read wrongly.

The compiled-model path and the interpreter share kernels and delegate; here too, every operation that the delegate
left shows as one event of its own node. Times have a resolution of a microsecond.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ToolError, UnsupportedError
from edgekit.program.tflite import flatbuffer
from edgekit.records import Operator, OperatorTime

KNOWN_VERSIONS = ("2.3.",)
WARMUP_RUNS = 3

_CPU = 1
_LOCK_WRITE = 1
_RUN_BEGINS = b"Invoke"
_MATRIX_WORDS = ("Convolution", "Fully Connected", "Deconvolution", "Batch Matrix")


class _EventType:
    SCOPE = 1
    OPERATOR = 2
    DELEGATED_OPERATOR = 8


class _Layout(ctypes.Structure):
    _fields_ = [("bits", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int32), ("layout", _Layout)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("begin_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_begin", ctypes.c_int64 * 3),
        ("memory_end", ctypes.c_int64 * 3),
        ("index", ctypes.c_uint64),
        ("extra", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


@dataclass(frozen=True, slots=True)
class Event:
    """One timed operation of one run.

    Attributes:
        tag: The kernel's name.
        delegated: Whether it ran inside the delegate.
        index: The graph's node for a kernel; the position in its partition for a delegated operation.
        elapsed_us: Microseconds, whole.
    """

    tag: str
    delegated: bool
    index: int
    elapsed_us: int


def profile_operators(
    path: Path, operators: Sequence[Operator], inputs: Sequence[NDArray[np.generic]], *, num_runs: int, num_threads: int
) -> tuple[OperatorTime, ...]:
    """Run a model under the profiler.

    Args:
        path: The ``.tflite`` file.
        operators: Its operators, as ``inspect`` lists them: they name the events.
        inputs: One fitted array an input, in the graph's order.
        num_runs: Runs that are averaged, after a few that are not.
        num_threads: Threads of the kernels.

    Raises:
        UnsupportedError: An unknown version of LiteRT, or inputs of another shape than the file's own.
        ToolError: The runtime failed.
    """
    installed = version("ai-edge-litert")
    if not installed.startswith(KNOWN_VERSIONS):
        raise UnsupportedError(
            f"operator times with ai-edge-litert {installed}",
            reason="its profiler's C interface may differ from the one that edgekit knows",
            instead=f"ai-edge-litert {', '.join(known + 'x' for known in KNOWN_VERSIONS)}",
        )
    with _static_copy(path, inputs) as static:
        runs = _record(static, inputs, num_runs=num_runs, num_threads=num_threads)
    return summarize(runs, operators)


def summarize(runs: Sequence[Sequence[Event]], operators: Sequence[Operator]) -> tuple[OperatorTime, ...]:
    """Average the runs, and name each event by the operator that it executes where that is certain.

    A kernel's event carries its node. Inside the delegate only the kernel's kind is known; as XNNPACK keeps the order
    of convolutions and matrix products, these are matched one to one when there are as many of them as in the graph.

    Raises:
        ToolError: Runs differ in their operations.
    """
    if not runs or len({tuple((event.tag, event.index) for event in run) for run in runs}) != 1:
        raise ToolError("LiteRT's profiler recorded runs that differ in their operations; profile again")
    first = runs[0]
    times_ms = [float(np.mean([run[position].elapsed_us for run in runs])) / 1e3 for position in range(len(first))]
    total = sum(times_ms) or 1.0
    named = _match(first, operators)
    seen: dict[str, int] = {}
    rows = []
    for position, (event, time_ms) in enumerate(zip(first, times_ms, strict=True)):
        operator = named.get(position)
        name = operator.name if operator else f"xnnpack/{event.tag}"
        seen[name] = seen.get(name, 0) + 1
        rows.append(
            OperatorTime(
                name=name if seen[name] == 1 else f"{name}#{seen[name]}",
                type=event.tag,
                delegated=event.delegated,
                time_ms=time_ms,
                share=time_ms / total,
                reason=operator.reason if operator and not event.delegated else None,
                macs=operator.macs if operator else None,
            )
        )
    return tuple(rows)


def _match(events: Sequence[Event], operators: Sequence[Operator]) -> dict[int, Operator]:
    by_node = {operator.index: operator for operator in operators}
    named = {
        position: by_node[event.index]
        for position, event in enumerate(events)
        if not event.delegated and event.index in by_node
    }
    products = [
        position
        for position, event in enumerate(events)
        if event.delegated and any(word in event.tag for word in _MATRIX_WORDS)
    ]
    delegated = [operator for operator in operators if operator.delegated and operator.macs]
    if len(products) == len(delegated):
        named.update(zip(products, delegated, strict=True))
    return named


@contextmanager
def _static_copy(path: Path, inputs: Sequence[NDArray[np.generic]]) -> Iterator[Path]:
    """Yield the file, or for a model whose batch is free a copy with the batch that it was converted at."""
    model = flatbuffer.read_model(path)
    specs = flatbuffer.model_inputs(model)
    if all(None not in spec.shape for spec in specs):
        yield path
        return
    graph = model.subgraphs[0]
    own = [flatbuffer.shape_of(graph.tensors[index]) for index in flatbuffer.indices(graph.inputs)]
    if own != [array.shape for array in inputs]:
        raise UnsupportedError(
            f"operator times of {path.name} at inputs of {[array.shape for array in inputs]}",
            reason="the profiler runs the file at its own shapes",
            instead=f"inputs of {own}",
        )
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        copy = Path(folder) / path.name
        flatbuffer.write_model(model, copy)
        yield copy


def _record(path: Path, inputs: Sequence[NDArray[np.generic]], *, num_runs: int, num_threads: int) -> list[list[Event]]:
    with _compiled(path, num_threads) as model:
        model.feed(inputs)
        for _ in range(WARMUP_RUNS + num_runs):
            model.run()
        return model.runs()[-num_runs:]


@contextmanager
def _compiled(path: Path, num_threads: int) -> Iterator[_CompiledModel]:
    model = _CompiledModel(path, num_threads)
    try:
        yield model
    finally:
        model.close()


class _CompiledModel:
    """LiteRT's compiled model with a started profiler."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
        self._owned: list[tuple[str, ctypes.c_void_p]] = []
        self._payloads: list[Any] = []
        try:
            self._load(path, num_threads)
        except ToolError:
            self.close()
            raise

    def _load(self, path: Path, num_threads: int) -> None:
        self._environment = self._create("CreateEnvironment", "DestroyEnvironment", 0, None)
        self._model = self._create(
            "CreateModelFromFile", "DestroyModel", self._environment, ctypes.c_char_p(str(path).encode())
        )
        options = self._create("CreateOptions", "DestroyOptions")
        self._call("SetOptionsHardwareAccelerators", options, _CPU)
        self._add_options(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._add_options(options, b"xnnpack", b"num_threads = %d\n" % num_threads)
        self._compiled = self._create(
            "CreateCompiledModel", "DestroyCompiledModel", self._environment, self._model, options
        )
        self._profiler = ctypes.c_void_p()
        self._call("CompiledModelGetProfiler", self._compiled, ctypes.byref(self._profiler))
        self._call("StartProfiler", self._profiler)
        self._signature = ctypes.c_void_p()
        self._call("GetModelSignature", self._model, ctypes.c_size_t(0), ctypes.byref(self._signature))
        self._input_names = self._names(flatbuffer.read_model(path))
        self._inputs = self._buffers("Input")
        self._outputs = self._buffers("Output")

    @staticmethod
    def _names(model: Any) -> list[int]:
        """Return, for each input of the signature, its position in the graph (the signature may order them anew)."""
        order = flatbuffer.indices(model.subgraphs[0].inputs)
        return [order.index(int(item.tensorIndex)) for item in model.signatureDefs[0].inputs]

    def feed(self, inputs: Sequence[NDArray[np.generic]]) -> None:
        """Write the inputs, given in the graph's order."""
        for buffer, position in zip(self._inputs, self._input_names, strict=True):
            array = np.ascontiguousarray(inputs[position])
            address = ctypes.c_void_p()
            self._call("LockTensorBuffer", buffer, ctypes.byref(address), _LOCK_WRITE)
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
            self._call("UnlockTensorBuffer", buffer)

    def run(self) -> None:
        """Run once."""
        inputs, outputs = self._array(self._inputs), self._array(self._outputs)
        self._call(
            "RunCompiledModel", self._compiled, ctypes.c_size_t(0),
            ctypes.c_size_t(len(inputs)), inputs, ctypes.c_size_t(len(outputs)), outputs,
        )  # fmt: skip

    def runs(self) -> list[list[Event]]:
        """Return what the profiler recorded, one list a run."""
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        runs: list[list[Event]] = []
        for event in events:
            if event.type == _EventType.SCOPE and event.tag == _RUN_BEGINS:
                runs.append([])
            elif event.type in (_EventType.OPERATOR, _EventType.DELEGATED_OPERATOR) and runs:
                inside = event.type == _EventType.DELEGATED_OPERATOR
                tag = (event.tag or b"").decode("utf-8", errors="replace")
                runs[-1].append(Event(tag, inside, int(event.index), int(event.elapsed_us)))
        return runs

    def close(self) -> None:
        """Free everything, the newest first."""
        while self._owned:
            destroy, handle = self._owned.pop()
            getattr(self._library, destroy)(handle)

    def _buffers(self, side: str) -> list[ctypes.c_void_p]:
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{side}s", self._signature, ctypes.byref(count))
        return [self._buffer(side, index) for index in range(count.value)]

    def _buffer(self, side: str, index: int) -> ctypes.c_void_p:
        tensor, kind, needs = ctypes.c_void_p(), _TensorType(), ctypes.c_void_p()
        position = ctypes.c_size_t(index)
        self._call(f"GetSignature{side}TensorByIndex", self._signature, position, ctypes.byref(tensor))
        self._call("GetRankedTensorType", tensor, ctypes.byref(kind))
        self._call(
            f"GetCompiledModel{side}BufferRequirements", self._compiled, ctypes.c_size_t(0), position,
            ctypes.byref(needs),
        )  # fmt: skip
        return self._create(
            "CreateManagedTensorBufferFromRequirements", "DestroyTensorBuffer", self._environment, ctypes.byref(kind),
            needs,
        )  # fmt: skip

    def _add_options(self, options: ctypes.c_void_p, name: bytes, text: bytes) -> None:
        payload = ctypes.create_string_buffer(text)
        keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _address: None)  # Python owns the payload
        self._payloads += [payload, keep]
        opaque = ctypes.c_void_p()
        self._call(
            "CreateOpaqueOptions", ctypes.c_char_p(name), ctypes.cast(payload, ctypes.c_void_p), keep,
            ctypes.byref(opaque),
        )  # fmt: skip
        self._call("AddOpaqueOptions", options, opaque)

    def _create(self, create: str, destroy: str, *arguments: Any) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(create, *arguments, ctypes.byref(handle))
        self._owned.append((f"LiteRt{destroy}", handle))
        return handle

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status:
            raise ToolError(f"LiteRT's profiler failed: LiteRt{name} returned status {status}")

    @staticmethod
    def _array(handles: Sequence[ctypes.c_void_p]) -> Any:
        return (ctypes.c_void_p * len(handles))(*handles)
