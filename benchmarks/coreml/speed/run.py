"""How long the reference evaluator takes, and how much memory, beside the same network in eager PyTorch.

Limits: 3 times the time, 2 times the memory, for MobileNetV2 (224 x 224) and the tiny vision transformer, as fp32 and
as fp16 packages. Times are ratios of medians taken by turns on one thread. Memory is how far the resident size of a
fresh process rises while the weights are read from disk and three images run; the libraries were imported before.

`python -m benchmarks.coreml.speed.run` writes results/coreml_speed.json.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.results import write_result
from edgekit.profile.affinity import pinned
from edgekit.profile.interleave import interleave
from edgekit.profile.memory import PeakMemory, release_free_memory
from edgekit.program.serialize import save_program
from edgekit.records import ExportRequest, Program, TensorSpec
from sample_models.mobilenet_v2 import model_pytorch as mobilenet_v2
from sample_models.vision_transformer import model_pytorch as vision_transformer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about the versions of other libraries
    from edgekit.formats.coreml.evaluator import Evaluator
    from edgekit.formats.coreml.evaluator.registry import known_operations
    from edgekit.formats.coreml.export import export
    from edgekit.formats.light_imports import import_coremltools

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mobilenet_v2": (lambda: mobilenet_v2.build(classes=1000), 224),
    "vision_transformer": (vision_transformer.build, 32),
}
PRECISIONS = ("fp32", "fp16")
TIME_LIMIT, MEMORY_LIMIT = 3.0, 2.0
ROUNDS, RUNS = 8, 5
MEMORY_RUNS = 3
EAGER = "eager"
READERS = ("coremltools.proto.Model_pb2", "coremltools.libmilstoragepython", "google.protobuf.message")
"""What the evaluator imports when it is first used."""


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Build a network with drawn weights, and an image for it."""
    torch.manual_seed(0)
    build, size = NETWORKS[name]
    return build().eval(), torch.randn(1, 3, size, size)


def write(name: str, folder: Path) -> None:
    """Write a network's weights, and its packages."""
    model, image = network(name)
    torch.save(model.state_dict(), folder / "weights.pt")
    save_program(torch.export.export(model, (image,)), folder / "program.pt2")
    program = Program(
        path=folder / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(TensorSpec(name="image", dtype="float32", shape=tuple(image.shape)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=tuple(model(image).shape)),),
        reference=folder / "none.npz",
        calibration=None,
        output_steps=(None,),
    )
    for precision in PRECISIONS:
        request = ExportRequest(
            program=program,
            format="coreml",
            precision=precision,
            output=folder / f"{precision}.mlpackage",
            work_dir=folder,
            keep_float32=(),
        )
        export(request)


def runner(name: str, what: str, folder: Path) -> Callable[[], Any]:
    """Load a network from disk, in eager PyTorch or as a package, and return what runs it once."""
    model, image = network(name)
    if what == EAGER:
        model.load_state_dict(torch.load(folder / "weights.pt"))
        return torch.inference_mode()(partial(model, image))
    evaluator = Evaluator(folder / f"{what}.mlpackage")
    feed = {evaluator.inputs[0].name: image.numpy()}
    return lambda: evaluator.run(feed)


def times(name: str, folder: Path) -> dict[str, Any]:
    """Time each package and eager PyTorch by turns."""
    found = {}
    for precision in PRECISIONS:
        eager, evaluated = runner(name, EAGER, folder), runner(name, precision, folder)
        with pinned(1):
            torch.set_num_threads(1)
            compared = interleave(eager, evaluated, rounds=ROUNDS, runs_per_round=RUNS, warmup_runs=3)
        found[precision] = {
            "ratio": compared.ratio,
            "interval": [compared.ratio_low, compared.ratio_high],
            "eager_ms": compared.median_a_ms,
            "evaluator_ms": compared.median_b_ms,
        }
    return found


def memory_bytes(name: str, what: str, folder: Path) -> int:
    """Measure one of them in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.coreml.speed.run", "--memory", name, what, str(folder)]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return int(said.stdout.split()[-1])


def measure_memory(name: str, what: str, folder: Path) -> int:
    """Return how far the resident size of this process rises while it loads and runs one of them."""
    torch.set_num_threads(1)
    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)).eval()
    tiny(torch.zeros(1, 3, 8, 8))  # what PyTorch sets up at its first convolution is no network's own
    import_coremltools()
    for module in READERS:
        importlib.import_module(module)
    known_operations()
    release_free_memory()
    with PeakMemory() as memory:
        run = runner(name, what, folder)
        for _ in range(MEMORY_RUNS):
            run()
    return memory.peak - memory.baseline


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Compare one network."""
    write(name, folder)
    found = times(name, folder)
    eager = memory_bytes(name, EAGER, folder)
    for precision, result in found.items():
        result["eager_bytes"] = eager
        result["evaluator_bytes"] = memory_bytes(name, precision, folder)
        result["memory_ratio"] = result["evaluator_bytes"] / eager
        result["passed"] = result["ratio"] <= TIME_LIMIT and result["memory_ratio"] <= MEMORY_LIMIT
    return found


def main() -> int:
    results = {}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = compare(name, Path(folder))
    passed = all(result["passed"] for found in results.values() for result in found.values())
    limits = {"time": TIME_LIMIT, "memory": MEMORY_LIMIT}
    write_result(
        "coreml_speed", {"limits": limits, "networks": results, "rounds": ROUNDS, "runs": RUNS, "passed": passed}
    )
    return 0 if passed else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        network_name, measured, place = sys.argv[2:]
        print(measure_memory(network_name, measured, Path(place)))
        sys.exit(0)
    sys.exit(main())
