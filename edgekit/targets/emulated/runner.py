"""Run one artifact with a guest runner: write its inputs, make the command line, read the result back.

The runners are the programs of ``targets/native``; their README describes the command line and the result. What a
runner is fed is made by the same functions that feed a session on this machine, and what it gives is read by the same:
a difference between the two is then one of kernels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from edgekit.data.feeding import fit_inputs, read_output
from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.records import FormatName, TensorSpec
from edgekit.targets.emulated.setup import Toolchain

Array = NDArray[np.generic]

EXIT_FAILED: Final = 4
"""Status of a runner that wrote an ``error`` into its result."""
PROFILER_SYSCALL: Final = 113
"""``clock_gettime``: ONNX Runtime's profiler asks the clock at the begin and the end of each node."""

_RUNTIMES: Final[Mapping[str, str]] = {"tflite": "litert", "executorch": "executorch", "onnx": "onnxruntime"}
_NODE_SUFFIX: Final = "_kernel_time"
_SHOWN_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerRequest:
    """One artifact to run on the guest.

    Attributes:
        runtime: A key of ``Toolchain.runners``; :func:`runtime_of` gives that of a format.
        model: The artifact.
        inputs: Its inputs, as its session or inspection states them.
        outputs: Its outputs.
        work_dir: Scratch folder of this run: inputs, outputs and the result.
        warmup: Inferences before the counted one.
        runs: Timed inferences, of which the first is counted.
        threads: Threads of the kernels.
        operators: Whether to list the runtime's operators, in one more inference that is not counted.
        profile_nodes: Whether the counted inference itself runs under the runtime's profiler (ONNX Runtime only): it
            then asks the clock around each node, which tells the nodes apart (:data:`PROFILER_SYSCALL`).
    """

    runtime: str
    model: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    work_dir: Path
    warmup: int = 1
    runs: int = 1
    threads: int = 1
    operators: bool = True
    profile_nodes: bool = False

    @property
    def result(self) -> Path:
        """Where the runner writes its result."""
        return self.work_dir / "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOperator:
    """One operator of the runtime, in the order of execution.

    Attributes:
        name: Unique where the runtime has unique names.
        type: The runtime's word for the kernel.
        delegated: Whether it ran inside a delegate; ONNX Runtime has none.
        node: LiteRT: the graph's node, or the position in the delegate's partition where ``delegated``. ExecuTorch: the
            instruction of the program. None where the runtime says the name only (ONNX Runtime: of the graph's node).
    """

    name: str
    type: str
    delegated: bool
    node: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerResult:
    """What a runner found.

    Attributes:
        runtime: Its name.
        version: Its version.
        outputs: One tuple a sample, one array an output; quantized ones as real numbers (float32).
        outputs_repeat: Whether the counted inference gave what the first one gave; false for a model that keeps state.
        load_ns: Of the emulator's time, which says nothing of a phone's.
        run_ns: The same for each timed inference.
        arena_bytes: What the runtime plans or holds for intermediate results; None where it does not say (LiteRT).
        heap_peak_bytes: The most that was allocated when it was looked: after loading, the counted and the last run.
        peak_rss_bytes: Resident memory of the guest's own pages, its libraries included: the largest sample, as the
            kernel's high-water mark counts the emulator too; on a real device that mark.
        operators: In the order of execution; empty where they were not asked for.
    """

    runtime: str
    version: str
    outputs: tuple[tuple[Array, ...], ...]
    outputs_repeat: bool
    load_ns: int
    run_ns: tuple[int, ...]
    arena_bytes: int | None
    heap_peak_bytes: int
    peak_rss_bytes: int
    operators: tuple[RunnerOperator, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """The runner's document."""

    runtime: str
    version: str
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    samples: int
    outputs_repeat: bool
    load_ns: int
    run_ns: tuple[int, ...]
    arena_bytes: int | None
    heap_peak_bytes: int
    peak_rss_bytes: int
    emulated: bool
    profile: str | None
    operators: tuple[RunnerOperator, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    stage: str
    message: str
    operator: str | None


_RESULT: Final = TypeAdapter(_Result)
_ERROR: Final = TypeAdapter(_Error)


def runtime_of(format_name: FormatName) -> str:
    """Return the runtime that runs a format on the guest.

    Raises:
        UnsupportedError: None does.
    """
    if format_name in _RUNTIMES:
        return _RUNTIMES[format_name]
    raise UnsupportedError(
        f"a {format_name} artifact on an emulated phone",
        reason="its runtime has no aarch64 Linux library",
        instead=f"one of {', '.join(sorted(_RUNTIMES))}, or a target that has the runtime",
    )


def guest_command(toolchain: Toolchain, request: RunnerRequest, samples: Sequence[Sequence[Array]]) -> list[str]:
    """Write the inputs and return the command that runs the artifact; ``guest.run_guest`` starts it.

    The first sample is warmed up with and counted; the others only give outputs, to be compared.

    Args:
        toolchain: With the runner.
        request: What to run. Its ``work_dir`` is made; a result of an earlier run there is removed.
        samples: One sequence of arrays a sample, as the source model takes them.

    Raises:
        UnsupportedError: The toolchain has no runner for this runtime, or an input holds strings.
        DataError: An input has the wrong shape, dtype or values, or samples differ in their shapes.
    """
    runner = _runner(toolchain, request.runtime)
    fitted = [_fit(request, sample) for sample in samples]
    if not fitted:
        raise DataError("expected at least one sample to run; received none")
    request.work_dir.mkdir(parents=True, exist_ok=True)
    request.result.unlink(missing_ok=True)
    command = [str(runner), "--model", str(request.model.absolute())]
    for index, arrays in enumerate(zip(*fitted, strict=True)):
        if len({array.shape for array in arrays}) > 1:
            shapes = sorted({array.shape for array in arrays})
            raise DataError(f"input {request.inputs[index].name!r}: expected samples of one shape; received {shapes}")
        path = request.work_dir.absolute() / f"input_{index}.bin"
        path.write_bytes(b"".join(_little_endian(array).tobytes() for array in arrays))
        command += ["--input", str(path)]
    if any(None in spec.shape for spec in request.inputs):
        for array in fitted[0]:
            command += ["--shape", ",".join(map(str, array.shape))]
    command += ["--output-dir", str(request.work_dir.absolute()), "--result", str(request.result.absolute())]
    command += ["--warmup", str(request.warmup), "--runs", str(request.runs), "--threads", str(request.threads)]
    command += ["--operators"] if request.operators else []
    command += ["--profile-nodes"] if request.profile_nodes else []
    return command


def read_result(request: RunnerRequest, exit_code: int, stderr: str) -> RunnerResult:
    """Read what a runner wrote.

    Args:
        request: As it was given to :func:`guest_command`.
        exit_code: Of the runner.
        stderr: What it wrote, for messages.

    Raises:
        UnsupportedError: The runtime lacks an operator of the model; the message names it.
        ToolError: The runner failed, or its result cannot be read.
    """
    document = _read_document(request, exit_code, stderr)
    if exit_code == EXIT_FAILED and "error" in document:
        raise _failure(request, _ERROR.validate_python(document["error"]))
    if exit_code:
        raise _broken(request, f"ended with status {exit_code}", stderr)
    try:
        result = _RESULT.validate_python(document)
        outputs = _read_outputs(request, result)
    except (ValidationError, ValueError, TypeError, OSError) as error:
        raise _broken(request, f"wrote a result that cannot be read ({error})", stderr) from error
    operators = result.operators or (_profiled_nodes(request.work_dir / result.profile) if result.profile else ())
    return RunnerResult(
        runtime=result.runtime,
        version=result.version,
        outputs=outputs,
        outputs_repeat=result.outputs_repeat,
        load_ns=result.load_ns,
        run_ns=result.run_ns,
        arena_bytes=result.arena_bytes,
        heap_peak_bytes=result.heap_peak_bytes,
        peak_rss_bytes=result.peak_rss_bytes,
        operators=operators,
    )


def nodes_of_profile(events: Sequence[Mapping[str, Any]]) -> tuple[RunnerOperator, ...]:
    """List the nodes of ONNX Runtime's first run under its profiler, in the order of execution.

    Args:
        events: The profile's JSON document. The event of a run comes after those of its nodes.
    """
    found = []
    for event in events:
        if event.get("cat") == "Session" and event["name"] == "model_run":
            break
        if event.get("cat") == "Node" and event["name"].endswith(_NODE_SUFFIX):
            name = event["name"].removesuffix(_NODE_SUFFIX)
            found.append(RunnerOperator(name=name, type=event["args"]["op_name"], delegated=False, node=None))
    return tuple(found)


def _runner(toolchain: Toolchain, runtime: str) -> Path:
    if runtime in toolchain.runners:
        return toolchain.runners[runtime]
    raise UnsupportedError(
        f"emulating {runtime}",
        reason=f"its guest runner is not built here (built: {', '.join(sorted(toolchain.runners)) or 'none'})",
        instead="`edgekit targets setup emulated`, which says what is missing",
    )


def _fit(request: RunnerRequest, sample: Sequence[Array]) -> tuple[Array, ...]:
    for spec in request.inputs:
        if np.dtype(spec.dtype).kind in "OSU":
            raise UnsupportedError(
                f"running {request.model.name} on an emulated phone",
                reason=f"its input {spec.name!r} holds strings",
                instead="an artifact whose inputs are numbers",
            )
    return fit_inputs(request.inputs, sample)


def _little_endian(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _read_document(request: RunnerRequest, exit_code: int, stderr: str) -> dict[str, Any]:
    try:
        document = json.loads(request.result.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError as error:
        raise _broken(request, f"ended with status {exit_code} and wrote no result", stderr) from error
    except (OSError, ValueError) as error:
        raise _broken(request, f"wrote a result that cannot be read ({error})", stderr) from error
    if not isinstance(document, dict):
        raise _broken(request, "wrote a result that is no JSON object", stderr)
    return document


def _read_outputs(request: RunnerRequest, result: _Result) -> tuple[tuple[Array, ...], ...]:
    if len(result.outputs) != len(request.outputs):
        raise ValueError(f"expected {len(request.outputs)} outputs, received {len(result.outputs)}")
    by_output = []
    for spec, tensor in zip(request.outputs, result.outputs, strict=True):
        content = (request.work_dir / tensor.file).read_bytes()  # the guest names its files from its own folder
        data = np.frombuffer(content, dtype=np.dtype(tensor.dtype).newbyteorder("<"))
        arrays = data.astype(tensor.dtype).reshape(result.samples, *tensor.shape)
        by_output.append([read_output(spec, array) for array in arrays])
    return tuple(zip(*by_output, strict=True))


def _profiled_nodes(path: Path) -> tuple[RunnerOperator, ...]:
    try:
        return nodes_of_profile(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError(f"the profile {path.name} of ONNX Runtime cannot be read: {error}", stage="emulate") from error


def _failure(request: RunnerRequest, error: _Error) -> UnsupportedError | ToolError:
    message = _shortened(error.message)
    if error.operator is not None and error.stage == "load":
        return UnsupportedError(
            f"{request.model.name} on an emulated phone",
            reason=f"{request.runtime} cannot prepare its operator {error.operator}: {message}",
            instead="a model without that operator, or another format",
        )
    at = f" at the operator {error.operator}" if error.operator else ""
    return ToolError(
        f"{request.runtime} failed on the guest to {error.stage} {request.model.name}{at}: {message}",
        stage="emulate",
        log=str(request.work_dir / "stderr.txt"),
    )


def _broken(request: RunnerRequest, what: str, stderr: str) -> ToolError:
    said = _shortened(stderr) or "nothing"
    return ToolError(
        f"the runner of {request.runtime} {what} for {request.model.name}; it said: {said}", stage="emulate"
    )


def _shortened(text: str) -> str:
    """Keep the end, where runtimes say what went wrong, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN_CHARACTERS else f"... {words[-_SHOWN_CHARACTERS:]}"
