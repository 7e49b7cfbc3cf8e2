"""The runtimes that a measurement can be taken with, and what a process of its own does with one.

Part of ``measure.py``, which is copied to a Mac and starts this file for each task; Python 3.9 or newer.

Usage::

    python3 runtimes.py REQUEST     # REQUEST: {"task": "measure", "options": {...}, "answer": "where to write it"}
"""

from __future__ import annotations

import base64
import gc
import json
import platform
import sys
import time
from pathlib import Path

from machine import PACKAGES, memory_now, package_version, reset_peak

UNITS = {"all": "ALL", "cpuAndNeuralEngine": "CPU_AND_NE", "cpuAndGPU": "CPU_AND_GPU", "cpuOnly": "CPU_ONLY"}
"""Core ML's words (``MLComputeUnits``) -> those of ``coremltools.ComputeUnit``."""
LOADS = 3
"""The first is cold as far as the system allows; the median of the others is a warm load."""


class Problem(Exception):
    """Why something could not be measured: a code of ``CODES`` and one sentence."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code

    def document(self):
        """Return it as documents hold it."""
        return {"code": self.code, "message": str(self)}


def _pairs(inputs, arrays):
    if len(inputs) != len(arrays):
        raise Problem("inputs_unreadable", f"expected {len(inputs)} inputs, received {len(arrays)}")
    return list(zip(inputs, arrays))  # Python 3.9 has no strict, and the lengths are the same


class _CoreML:
    """A compiled package with one choice of compute units. Written, not run."""

    name = "Core ML"
    delegates = ()

    def __init__(self, options):
        import coremltools

        self.tools = coremltools
        description = coremltools.utils.load_spec(options["artifact"]).description
        self.inputs = [feature.name for feature in description.input]
        self.outputs = [feature.name for feature in description.output]
        self.keeps_state = len(getattr(description, "state", ())) > 0
        self.unit = getattr(coremltools.ComputeUnit, UNITS[options["unit"]])
        self.compiled = options["compiled"]
        self.version = platform.mac_ver()[0]

    def load(self):
        self.model = self.tools.models.CompiledMLModel(self.compiled, compute_units=self.unit)

    def feed(self, arrays):
        import numpy

        fed = [array.astype(numpy.float32) if array.dtype == bool else array for array in arrays]
        self.data = dict(_pairs(self.inputs, fed))
        self.state = self.model.make_state() if self.keeps_state else None

    def run(self):
        self.found = self.model.predict(self.data, self.state) if self.keeps_state else self.model.predict(self.data)

    def results(self):
        return [self.found[name] for name in self.outputs]


class _LiteRT:
    """LiteRT's interpreter with its default delegate."""

    name = "LiteRT"
    delegates = ("XNNPACK",)

    def __init__(self, options):
        from ai_edge_litert.interpreter import Interpreter

        self.make = lambda: Interpreter(model_path=options["artifact"], num_threads=options["num_threads"])
        self.version = package_version("ai-edge-litert")

    def load(self):
        self.model = self.make()
        self.model.allocate_tensors()

    def feed(self, arrays):
        pairs = _pairs(self.model.get_input_details(), arrays)
        if any(tuple(detail["shape"]) != array.shape for detail, array in pairs):
            for detail, array in pairs:
                self.model.resize_tensor_input(detail["index"], array.shape)
            self.model.allocate_tensors()
        self.model.reset_all_variables()
        for detail, array in pairs:
            self.model.set_tensor(detail["index"], array)

    def run(self):
        self.model.invoke()

    def results(self):
        return [self.model.get_tensor(detail["index"]) for detail in self.model.get_output_details()]


class _ExecuTorch:
    """ExecuTorch's runtime; its delegates are those that its wheel was built with."""

    name = "ExecuTorch"
    delegates = ()

    def __init__(self, options):
        import executorch.kernels.quantized  # noqa: F401 - registers kernels
        from executorch.extension.pybindings import _C
        from executorch.runtime import Runtime

        if _C._threadpool_get_thread_count() != options["num_threads"]:
            _C._unsafe_reset_threadpool(options["num_threads"])
        self.runtime = Runtime.get()
        self.path = options["artifact"]
        self.version = package_version("executorch")

    def load(self):
        program = self.runtime.load_program(Path(self.path))
        self.program, self.model = program, program.load_method("forward")

    def feed(self, arrays):
        import torch

        self.tensors = [torch.from_numpy(array.copy()) for array in arrays]

    def run(self):
        self.found = self.model.execute(self.tensors)

    def results(self):
        return [tensor.numpy() if hasattr(tensor, "numpy") else tensor for tensor in self.found]


class _OnnxRuntime:
    """ONNX Runtime on the CPU."""

    name = "ONNX Runtime"
    delegates = ("CPUExecutionProvider",)

    def __init__(self, options):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options["num_threads"]
        settings.inter_op_num_threads = 1
        self.make = lambda: onnxruntime.InferenceSession(options["artifact"], settings, providers=list(self.delegates))
        self.version = package_version("onnxruntime")

    def load(self):
        self.model = self.make()
        self.inputs = [node.name for node in self.model.get_inputs()]

    def feed(self, arrays):
        self.data = dict(_pairs(self.inputs, arrays))

    def run(self):
        self.found = self.model.run(None, self.data)

    def results(self):
        return self.found


MODULES = {"coreml": "coremltools", "tflite": "ai_edge_litert", "executorch": "executorch", "onnx": "onnxruntime"}
"""Format -> the module that runs it."""
RUNTIMES = {"coreml": _CoreML, "tflite": _LiteRT, "executorch": _ExecuTorch, "onnx": _OnnxRuntime}


def _load_inputs(path):
    """Return the samples: one list of arrays a sample, each with a batch of one."""
    import numpy

    try:
        with numpy.load(str(path), allow_pickle=False) as file:
            arrays = [file[f"input_{i}"] for i in range(sum(name.startswith("input_") for name in file.files))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"expected an .npz with input_0, input_1 ... at {path}; {error}"
        raise Problem("inputs_unreadable", message) from error
    if not arrays or any(array.ndim == 0 or not len(array) for array in arrays):
        raise Problem("inputs_unreadable", f"expected at least one sample in {path}; there is none")
    return [[array[index : index + 1] for array in arrays] for index in range(min(map(len, arrays)))]


def _timed_ms(function):
    start = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - start) / 1e6


def _task_compile(options):
    """Compile a package; what takes the time is the compiler of Core ML, once for all choices of compute units."""
    from coremltools.models.utils import compile_model

    return {"compile_ms": _timed_ms(lambda: compile_model(options["artifact"], options["compiled"]))}


def _task_measure(options):
    """Load three times, run once, warm up, run with a clock; then run every sample for its outputs."""
    samples = _load_inputs(options["inputs"])
    runtime = RUNTIMES[options["format"]](options)
    gc.collect()
    reset_peak()
    baseline = memory_now()[0]
    loads = []
    for _ in range(LOADS):
        runtime.model = None  # or the peak would hold two models
        gc.collect()
        loads.append(_timed_ms(runtime.load))
    after_load = memory_now()[0]
    runtime.feed(samples[0])
    first = _timed_ms(runtime.run)
    for _ in range(options["warmup_runs"]):
        runtime.run()
    gc.collect()
    gc.disable()
    times = [_timed_ms(runtime.run) for _ in range(options["num_runs"])]
    gc.enable()
    package = PACKAGES[MODULES[options["format"]]]
    _, peak, method = memory_now()
    return {
        "load_ms": loads,
        "first_ms": first,
        "samples_ms": times,
        "memory": {"baseline": baseline, "after_load": after_load, "peak": peak, "method": method},
        "runtime": {
            "name": runtime.name,
            "version": runtime.version,
            "delegates": list(runtime.delegates),
            "package": f"{package} {package_version(package)}",
        },
        "tensors": _output_tensors(runtime, samples, options["max_output_bytes"]),
    }


def _output_tensors(runtime, samples, limit):
    """Run as many samples as fit the limit (one at least); one tensor an output, with the samples in axis 0."""
    import numpy

    found, used = [], 0
    for arrays in samples:
        runtime.feed(arrays)
        runtime.run()
        outputs = [numpy.array(numpy.atleast_1d(array)) for array in runtime.results()]
        used += sum(output.nbytes for output in outputs)
        if found and used > limit:
            break
        found.append(outputs)
    return [_tensor(numpy.concatenate([outputs[index] for outputs in found])) for index in range(len(found[0]))]


def _tensor(array):
    data = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "base64": data}


def _task_plan(options):
    """Ask Core ML where it would run each operation (macOS 14.4 or newer). Written, not run."""
    import coremltools
    from coremltools.models.compute_plan import MLComputePlan

    unit = getattr(coremltools.ComputeUnit, UNITS[options["unit"]])
    plan = MLComputePlan.load_from_path(path=options["compiled"], compute_units=unit)
    functions = plan.model_structure.program.functions
    block = functions["main"].block if "main" in functions else next(iter(functions.values())).block
    return {"operations": list(_plan_operations(plan, block))}


def _plan_operations(plan, block):
    for operation in block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:  # constants have none
            cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
            yield {
                "name": operation.outputs[0].name if operation.outputs else "",
                "type": operation.operator_name,
                "preferred": _unit_name(usage.preferred_compute_device),
                "supported": sorted(_unit_name(device) for device in usage.supported_compute_devices),
                "cost": None if cost is None else float(cost.weight),
            }
        for inner in operation.blocks:
            yield from _plan_operations(plan, inner)


def _unit_name(device):
    """Turn ``MLNeuralEngineComputeDevice`` and its siblings into ``neural_engine``, ``gpu``, ``cpu``."""
    name = type(device).__name__
    return "neural_engine" if "NeuralEngine" in name else "gpu" if "GPU" in name else "cpu"


TASKS = {"compile": _task_compile, "measure": _task_measure, "plan": _task_plan}


def main(request_path):
    """Do one task in this process: read the request, write the answer beside it."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    try:
        answer = {"result": TASKS[request["task"]](request["options"])}
    except Problem as problem:
        answer = {"error": problem.document()}
    except Exception as error:  # noqa: BLE001 - the boundary of the process: runtimes raise anything
        first = (str(error).strip().splitlines() or [""])[0][:500]
        answer = {"error": {"code": "runtime_failed", "message": f"{type(error).__name__}: {first}"}}
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
