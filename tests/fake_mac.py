"""A Python that believes to run on a Mac: what the system and coremltools would answer there, so far as measuring asks.

Everything else is real: the interpreter, its processes, the measuring script. The model computes ``x @ weights``.
"""

from __future__ import annotations

import json
import stat
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SITE = '''
"""Runs before anything else in this Python: the system that it sees is a Mac."""
import ctypes, importlib.util, json, os, platform

FACTS = json.loads(open(os.environ["FAKE_MAC"]).read())
platform.system = lambda: "Darwin"
platform.machine = lambda: "arm64"
platform.mac_ver = lambda *_: (FACTS["macos"], ("", "", ""), "arm64")


_find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in FACTS["missing"] else _find_spec(name, package)


class _System:
    """``proc_pid_rusage`` of libSystem: 16 bytes of identifier, then 64-bit fields."""

    @staticmethod
    def proc_pid_rusage(pid, flavor, buffer):
        assert flavor == 4
        fields = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint64))
        fields[2 + 7], fields[2 + 28] = 50_000_000, 80_000_000
        return 0


_real = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: _System if "libSystem" in str(name) else _real(name, *rest, **more)
'''

_COREMLTOOLS = '''
"""What measuring uses of coremltools."""
import enum, json, os
from types import SimpleNamespace as _Namespace

FACTS = json.loads(open(os.environ["FAKE_MAC"]).read())


class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


def _load_spec(path):
    assert os.path.isdir(path), path
    features = {key: [_Namespace(name=name) for name in FACTS[key]] for key in ("inputs", "outputs")}
    return _Namespace(description=_Namespace(input=features["inputs"], output=features["outputs"], state=[]))


utils = _Namespace(load_spec=_load_spec)
from coremltools import models
'''

_MODELS = """
import os, signal, time
import numpy
from coremltools import FACTS


class CompiledMLModel:
    def __init__(self, path, compute_units):
        assert path.endswith(".mlmodelc") and os.path.isdir(path), path
        self.unit = compute_units.name
        if self.unit in FACTS["crashes"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.unit in FACTS["refuses"]:
            raise RuntimeError("Error compiling model: the unit refuses it")
        self.weights = numpy.load(FACTS["weights"])

    def predict(self, data, state=None):
        time.sleep(FACTS["sleep_s"])
        (name,), (output,) = FACTS["inputs"], FACTS["outputs"]
        return {output: (data[name] @ self.weights * FACTS["gain"]).astype("float32")}
"""

_UTILS = """
import shutil


def compile_model(model, destination_path=None):
    shutil.copytree(model, destination_path)
    return destination_path
"""

_PLAN = """
from types import SimpleNamespace as _Namespace


class MLCPUComputeDevice: pass
class MLGPUComputeDevice: pass
class MLNeuralEngineComputeDevice: pass


def _operation(kind, name):
    return _Namespace(operator_name=kind, outputs=[_Namespace(name=name)], blocks=[])


class MLComputePlan:
    @classmethod
    def load_from_path(cls, path, compute_units):
        return cls()

    @property
    def model_structure(self):
        operations = [_operation("const", "w"), _operation("ios17.linear", "h"), _operation("ios17.cast", "y")]
        block = _Namespace(operations=operations)
        return _Namespace(program=_Namespace(functions={"main": _Namespace(block=block)}))

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        if operation.operator_name == "const":
            return None
        engine, cpu = MLNeuralEngineComputeDevice(), MLCPUComputeDevice()
        takes = [cpu, engine] if "linear" in operation.operator_name else [cpu]
        return _Namespace(preferred_compute_device=takes[-1], supported_compute_devices=takes)

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        return _Namespace(weight=0.75 if "linear" in operation.operator_name else 0.25)
"""

_TOOLS = {
    "sysctl": """
        case "$2" in
          hw.model) echo Mac14,2;;
          machdep.cpu.brand_string) echo "Apple M2";;
          hw.physicalcpu) echo 8;;
          hw.perflevel0.physicalcpu) echo 4;;
          hw.perflevel1.physicalcpu) echo 4;;
          hw.memsize) echo 17179869184;;
          *) exit 1;;
        esac""",
    "sw_vers": "echo 23F79",
    "pmset": """
        case "$2" in
          batt) echo "Now drawing from 'AC Power'";;
          therm) printf 'CPU Power notify\\n\\tCPU_Scheduler_Limit \\t= 100\\n\\tCPU_Speed_Limit \\t= 60\\n';;
          *) printf 'Currently in use:\\n lowpowermode         1\\n';;
        esac""",
}


@dataclass(frozen=True)
class FakeMac:
    """Where it lies."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> FakeMac:
        """Write it."""
        site = folder / "site"
        (site / "coremltools" / "models").mkdir(parents=True)
        (site / "sitecustomize.py").write_text(_SITE)
        (site / "coremltools" / "__init__.py").write_text(_COREMLTOOLS)
        (site / "coremltools" / "models" / "__init__.py").write_text(_MODELS)
        (site / "coremltools" / "models" / "utils.py").write_text(_UTILS)
        (site / "coremltools" / "models" / "compute_plan.py").write_text(_PLAN)
        tools = folder / "tools"
        tools.mkdir()
        for name, body in _TOOLS.items():
            _executable(tools / name, textwrap.dedent(body))
        environment = f"PYTHONPATH={site} FAKE_MAC={folder}/facts.json PATH={tools}:$PATH"
        _executable(folder / "python3", f'{environment} exec {sys.executable} "$@"')
        mac = cls(folder)
        mac.becomes()
        return mac

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "python3")

    def computes(self, weights: NDArray[np.float32]) -> None:
        """Let its models compute ``x @ weights``."""
        np.save(self.folder / "weights.npy", weights)

    def becomes(self, **facts: Any) -> None:
        """Change what it is: ``macos``, ``missing`` packages, units that it ``crashes`` or ``refuses`` on, ``gain``."""
        known = {
            "macos": "14.5",
            "missing": [],
            "crashes": [],
            "refuses": [],
            "gain": 1.0,
            "sleep_s": 0.001,
            "inputs": ["x"],
            "outputs": ["y"],
            "weights": str(self.folder / "weights.npy"),
        }
        (self.folder / "facts.json").write_text(json.dumps({**known, **facts}))


def _executable(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
