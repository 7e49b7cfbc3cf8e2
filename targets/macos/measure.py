#!/usr/bin/env python3
r"""Measure one model artifact on this machine and write what was found as one JSON document.

This folder is to be copied to a Mac and run there; Python 3.9 or newer. It needs numpy and the runtime of the artifact
(``coremltools`` for ``.mlpackage``; ``ai-edge-litert``, ``executorch`` or ``onnxruntime`` for the others, which it also
times on Linux), and nothing of edgekit. The Core ML part is written from coremltools' documentation and has not been
run on a Mac: none was at hand. Everything else is tested on Linux.

Usage::

    python3 measure.py --artifact net.mlpackage --inputs in.npz --result out.json \
        --num-runs 50 --warmup-runs 10 --compute-units all,cpuAndNeuralEngine,cpuAndGPU,cpuOnly
    python3 measure.py --probe --result out.json       # only says what this machine is

``in.npz`` holds ``input_0``, ``input_1`` ... with the samples in axis 0, in the order and dtype of the artifact's own
inputs. The first sample is timed; the outputs of all of them are brought back, up to ``--max-output-bytes``.

Each choice of compute units is measured in a process of its own: memory starts from nothing, and a driver that
crashes takes one choice with it, not the document.

The document (``schema_version`` 1; times in milliseconds, memory in bytes, null for "not known")::

    {"schema_version": 1, "kind": "edgekit-measurement",
     "tool": {"name": "measure.py", "version": "1"},
     "machine": {"model": "Mac14,2", "chip": "Apple M2", "system": "macOS 14.5", ...},
     "conditions": {"power": "AC Power", "low_power_mode": "off", "thermal": "nominal", "load_average": "1.2"},
     "measurements": [{
       "artifact": {"name": "net.mlpackage", "format": "coreml", "sha256": "..."},
       "runtime": {"name": "Core ML", "version": "14.5", "delegates": [], "package": "coremltools 9.0"},
       "config": {"num_runs": 50, "warmup_runs": 10, "num_threads": 1},
       "compile_ms": 812.0,
       "runs": [{"compute_units": "all", "load_ms": [310.2, 12.1, 12.0], "first_ms": 3.1, "samples_ms": [...],
                 "memory": {"baseline": 0, "after_load": 0, "peak": 0, "method": "phys_footprint"}, "error": null}],
       "outputs": {"compute_units": "all", "tensors": [{"shape": [4, 10], "dtype": "float32", "base64": "..."}]},
       "plan": {"compute_units": "all", "operations": [{"name": "y", "type": "conv", "preferred": "neural_engine",
                "supported": ["cpu", "neural_engine"], "cost": 0.4}]},
       "notes": [], "error": null}],
     "error": null}

``compute_units`` is ``cpu`` for runtimes without such a choice. An ``error`` is ``{"code": ..., "message": ...}``, with
one of the codes of ``CODES``. The exit status is 0 where something was timed (or probed), 1 where the document says
why nothing was, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import MAC, PACKAGES, conditions, is_installed, machine_facts, macos_version
from runtimes import MODULES, UNITS, Problem

SCHEMA_VERSION = 1
KIND = "edgekit-measurement"
TOOL = {"name": "measure.py", "version": "1"}
CODES = (
    *("artifact_unreadable", "inputs_unreadable", "wrong_system", "system_too_old"),
    *("runtime_missing", "runtime_failed", "crashed", "timed_out"),
)
FORMATS = {".mlpackage": "coreml", ".tflite": "tflite", ".pte": "executorch", ".onnx": "onnx"}
NEEDS_MACOS = {6: (12, 0), 7: (13, 0), 8: (14, 0), 9: (15, 0), 10: (26, 0)}
"""Specification version -> first macOS that reads it: https://apple.github.io/coremltools/mlmodel/Format/Model.html"""


def _format_of(path):
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise Problem("artifact_unreadable", f"expected one of {', '.join(FORMATS)}; received {path.name!r}")
    if not path.exists():
        raise Problem("artifact_unreadable", f"expected an artifact at {path}; there is none")
    return FORMATS[suffix]


def _digest(path):
    """Return the SHA-256 of a file's bytes, or of a folder's names, sizes and bytes in sorted order."""
    found = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            found.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()


def _specification_version(package):
    """Read field 1 (a varint) of a package's specification; None where it does not start with one."""
    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        head = (package / "Data" / root).read_bytes()[:6]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem("artifact_unreadable", f"{package.name} has no readable manifest: {error}") from error
    value = shift = 0
    if head[:1] != b"\x08":
        return None
    for byte in head[1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value
    return None


def _check_can_run(path, kind):
    """Refuse what cannot work before any of it is tried."""
    if kind == "coreml":
        if not MAC:
            raise Problem("wrong_system", f"Core ML exists on macOS only; this is {platform.system()}")
        version = _specification_version(path)
        needed = NEEDS_MACOS.get(version, (99, 0) if version and version > max(NEEDS_MACOS) else (0, 0))
        if macos_version() < needed:
            newest = "a newer one than this script knows" if needed[0] == 99 else f"macOS {needed[0]}"
            have = ".".join(map(str, macos_version()))
            raise Problem("system_too_old", f"specification version {version} needs {newest}; this is macOS {have}")
    for module in ("numpy", MODULES[kind]):
        if not is_installed(module):
            command = f"{sys.executable} -m pip install {PACKAGES[module]}"
            raise Problem("runtime_missing", f"Python here has no {PACKAGES[module]}; install it with: {command}")


def _in_process(task, options, folder, deadline):
    """Do a task in a process of its own and return its result, or raise the problem it met."""
    request, answer = folder / "request.json", folder / "answer.json"
    answer.unlink(missing_ok=True)
    request.write_text(json.dumps({"task": task, "options": options, "answer": str(answer)}), encoding="utf-8")
    limit = max(deadline - time.monotonic(), 0.1)
    command = [sys.executable, str(Path(__file__).resolve().with_name("runtimes.py")), str(request)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise Problem("timed_out", f"{task} ran past the limit and was stopped") from error
    if not answer.is_file():
        raise Problem("crashed", f"{task} ended with status {done.returncode} and no answer")
    found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise Problem(found["error"]["code"], found["error"]["message"])
    return found["result"]


def measure(arguments, folder):
    """Measure one artifact with every choice of compute units."""
    path = Path(arguments.artifact).resolve()
    found = {"runs": [], "outputs": None, "plan": None, "compile_ms": None, "runtime": None, "notes": [], "error": None}
    found["artifact"] = {"name": path.name, "format": None, "sha256": None}
    found["config"] = {name: getattr(arguments, name) for name in ("num_runs", "warmup_runs", "num_threads")}
    deadline = time.monotonic() + arguments.timeout
    try:
        kind = _format_of(path)
        found["artifact"].update(format=kind, sha256=_digest(path))
        _check_can_run(path, kind)
        options = {
            **found["config"],
            "artifact": str(path),
            "format": kind,
            "inputs": str(Path(arguments.inputs).resolve()),
            "compiled": str(folder / "compiled.mlmodelc"),
            "max_output_bytes": arguments.max_output_bytes,
        }
        if kind == "coreml":
            found["compile_ms"] = _in_process("compile", options, folder, deadline)["compile_ms"]
        for unit in arguments.compute_units if kind == "coreml" else ["cpu"]:
            found["runs"].append(_measure_unit(unit, options, found, folder, deadline))
        if kind == "coreml":
            _add_plan(options, found, folder, deadline)
    except Problem as problem:
        found["error"] = problem.document()
    if found["error"] is None and all(run["error"] is not None for run in found["runs"]):
        found["error"] = found["runs"][0]["error"]
    return found


def _measure_unit(unit, options, found, folder, deadline):
    run = {"compute_units": unit, "load_ms": [], "first_ms": None, "samples_ms": [], "memory": None, "error": None}
    try:
        result = _in_process("measure", {**options, "unit": unit}, folder, deadline)
    except Problem as problem:
        run["error"] = problem.document()
        return run
    runtime, tensors = result.pop("runtime"), result.pop("tensors")
    run.update(result)
    if found["outputs"] is None:
        found["runtime"], found["outputs"] = runtime, {"compute_units": unit, "tensors": tensors}
    return run


def _add_plan(options, found, folder, deadline):
    timed = [run["compute_units"] for run in found["runs"] if run["error"] is None]
    if not timed:
        return
    if macos_version() < (14, 4):
        found["notes"].append("no plan of compute units: MLComputePlan needs macOS 14.4 or newer")
        return
    try:
        found["plan"] = {
            "compute_units": timed[0],
            **_in_process("plan", {**options, "unit": timed[0]}, folder, deadline),
        }
    except Problem as problem:
        found["notes"].append(f"no plan of compute units: {problem}")


def _parse(arguments):
    parser = argparse.ArgumentParser(description="Measure one model artifact on this machine.")
    parser.add_argument("--artifact", help=".mlpackage, .tflite, .pte or .onnx")
    parser.add_argument("--inputs", help=".npz with input_0, input_1 ...")
    parser.add_argument("--result", help="where to write the document")
    parser.add_argument("--num-runs", type=int, default=50)
    parser.add_argument("--warmup-runs", type=int, default=10)
    parser.add_argument("--num-threads", type=int, default=1, help="of runtimes other than Core ML")
    parser.add_argument("--compute-units", type=_units, default=list(UNITS), help="comma-separated")
    parser.add_argument("--max-output-bytes", type=int, default=16 << 20)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds, for everything")
    parser.add_argument("--probe", action="store_true", help="only say what this machine is")
    found = parser.parse_args(arguments)
    if not found.result:
        parser.error("--result is needed")
    if not found.probe and not (found.artifact and found.inputs):
        parser.error("--artifact and --inputs are needed")
    if found.num_runs < 1 or found.warmup_runs < 0 or found.num_threads < 1:
        parser.error("expected at least 1 run, 0 warm-up runs and 1 thread")
    return found


def _units(text):
    words = [word for word in text.split(",") if word]
    unknown = [word for word in words if word not in UNITS]
    if unknown or not words:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(UNITS)}; received {text!r}")
    return words


def main(argv):
    """Measure or probe, write the document, and say by the exit status whether there is a figure in it."""
    arguments = _parse(argv)
    document = {"schema_version": SCHEMA_VERSION, "kind": KIND, "tool": TOOL, "machine": machine_facts()}
    document.update(conditions=conditions(), measurements=[], error=None)
    folder = Path(tempfile.mkdtemp(prefix="edgekit-measure-", dir=str(Path(arguments.result).resolve().parent)))
    try:
        if not arguments.probe:
            document["measurements"].append(measure(arguments, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    partial = Path(arguments.result + ".partial")
    partial.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(arguments.result)
    return 1 if any(found["error"] for found in document["measurements"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
