"""Where benchmarks write: results/<name>.json, with the machine and the tools that they ran on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
TOOLS = (
    "torch",
    "torchao",
    "executorch",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "coremltools",
    "onnxruntime",
)


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write a benchmark's result and print it."""
    FOLDER.mkdir(exist_ok=True)
    document = {
        "schema_version": 1,
        "benchmark": name,
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "tools": {tool: importlib.metadata.version(tool) for tool in TOOLS},
        "result": result,
    }
    text = json.dumps(document, indent=2) + "\n"
    (FOLDER / f"{name}.json").write_text(text)
    sys.stdout.write(text)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
