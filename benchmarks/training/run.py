"""What a step of pruned and of quantization-aware training costs against a plain one, on whatever device is there.

    python -m benchmarks.training.run            # CUDA: ResNet8 at 32, MobileNetV2 at 224, batch 256; CPU: smaller
    python -m benchmarks.training.run --quick    # a minute or two on two cores
    python -m benchmarks.training.run --case mobilenet_v2:224:256 --variants plain,qat,qat-compiled

A step is what the training loop does: forward under autocast, loss, backward, optimizer, and the pruner's turn; the
batch lies on the device already. All variants of a case are built first, warmed up, and timed in turns (plain, pruned,
qat, plain, ...), so that what else happens on the machine hits all of them alike; a ratio is the median over rounds of
variant / plain within the same round. On CUDA peak memory is the allocator's, of one step of that variant above what
all variants hold; on a CPU it is the peak of a fresh process with that variant alone, above what it held before its
first step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.results import write_result
from edgekit.frameworks.pytorch.capture import move_constants
from edgekit.frameworks.pytorch.device import Placement, open_fabric, place, to_memory_format
from edgekit.frameworks.pytorch.observers import float_observers
from edgekit.frameworks.pytorch.optimizer import make_optimizer
from edgekit.frameworks.pytorch.prune import Pruner
from edgekit.frameworks.pytorch.quantize import prepare
from edgekit.recipe.schema import PruneRule, QuantizeRule, TrainSection

CLASSES = 10
LIMIT_ON_GPU = 1.3
VARIANTS = ("plain", "pruned", "pruned-2:4", "qat", "qat-compiled")
GPU_CASES = ("image_classification:32:256", "mobilenet_v2:224:256")
CPU_CASES = ("image_classification:32:64", "mobilenet_v2:96:16")
QUICK_CASES = ("image_classification:32:32", "mobilenet_v2:64:4")
TRAINING_STEPS = 2000
"""Steps of the training that the timed ones stand in the middle of: in the ramp of pruning, where masks are drawn."""

Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A sample model, the side of its square images, and the batch."""

    model: str
    size: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> Case:
        model, size, batch = text.split(":")
        return cls(model, int(size), int(batch))


def main() -> int:
    options = parse_options()
    torch.set_num_threads(options.threads)
    if options.peak_of:
        print(json.dumps(peak_rss_bytes(Case.parse(options.case[0]), options.peak_of, options)))
        return 0
    on_gpu = torch.cuda.is_available() and options.device != "cpu"
    cases = options.case or (QUICK_CASES if options.quick else GPU_CASES if on_gpu else CPU_CASES)
    results = [measure_case(Case.parse(text), options) for text in cases]
    write_result(
        "training",
        {
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "rounds": options.rounds,
            "steps_per_round": options.steps,
            "limit": LIMIT_ON_GPU if on_gpu else None,
            "cases": results,
        },
    )
    worst = max(
        (case["variants"][name]["ratio"] for case in results for name in ("pruned", "qat") if name in case["variants"]),
        default=0,
    )
    return 1 if on_gpu and worst > LIMIT_ON_GPU else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="model:size:batch, may be repeated")
    parser.add_argument("--variants", default="", help=f"of {', '.join(VARIANTS)}; plain is always timed")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="steps a round")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU; one is steadiest on a shared machine")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = options.rounds or (5 if options.quick else 15)
    options.steps = options.steps or (2 if options.quick else 4)
    wanted = [name for name in options.variants.split(",") if name]
    default = VARIANTS if torch.cuda.is_available() and options.device != "cpu" else VARIANTS[:4]
    options.variants = ["plain", *(name for name in wanted or default if name != "plain")]
    return options


def measure_case(case: Case, options: argparse.Namespace) -> dict[str, object]:
    with ExitStack() as opened:
        built = {name: build_step(case, name, options, opened) for name in options.variants}
        steps = {name: step for name, (step, _) in built.items()}
        placements = {name: placement for name, (_, placement) in built.items()}
        times = timed_in_turns(steps, options)
        on_gpu = placements["plain"].device.startswith("cuda")
        peaks = {name: gpu_peak_bytes(step) if on_gpu else None for name, step in steps.items()}
    if not on_gpu and not options.quick:
        peaks = {name: peak_in_child(case, name, options) for name in steps}
    return {
        "model": case.model,
        "image": case.size,
        "batch": case.batch,
        "variants": {name: summary(times, name, case, placements[name], peaks[name]) for name in steps},
    }


def summary(
    times: dict[str, list[float]], name: str, case: Case, placement: Placement, peak: int | None
) -> dict[str, object]:
    ratios = [own / plain for own, plain in zip(times[name], times["plain"], strict=True)]
    median_s = statistics.median(times[name])
    return {
        "step_ms": round(median_s * 1e3, 3),
        "samples_per_second": round(case.batch / median_s, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
        "peak_memory_bytes": peak,
        "autocast": placement.autocast,
        "compiled": placement.compile,
        "channels_last": placement.channels_last,
    }


def build_step(case: Case, variant: str, options: argparse.Namespace, opened: ExitStack) -> tuple[Step, Placement]:
    torch.manual_seed(0)
    settings = TrainSection(precision=options.precision, device=options.device, batch_size=case.batch)
    source: nn.Module = importlib.import_module(f"sample_models.{case.model}.model_pytorch").build(classes=CLASSES)
    inputs, labels = torch.randn(case.batch, 3, case.size, case.size), torch.randint(CLASSES, (case.batch,))
    module: nn.Module = source
    if variant.startswith("qat"):
        module = prepare(source, (inputs[:2],), QuantizeRule(precision="int8"), qat=True)
    placement = place(settings, module)
    if variant == "qat-compiled":
        placement = replace(placement, compile=True)
    fabric = open_fabric(placement)
    move_to(module, fabric.device, placement)
    batch, answers = inputs.to(fabric.device), labels.to(fabric.device)
    if placement.channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    module.train()
    opened.enter_context(float_observers(module))
    if variant.startswith("qat"):
        with torch.no_grad(), fabric.autocast():
            module(batch)  # scales take their size at the first batch; a graph compiled before that would not fit them
    rule = PruneRule(sparsity=0.5, granularity="2:4" if variant.endswith("2:4") else "weight")
    pruner = Pruner.prepare(source, rule) if variant.startswith("pruned") else None
    optimizer = make_optimizer(module, settings, settings.lr, fused=fabric.device.type == "cuda")
    model, optimizer = fabric.setup(torch.compile(module) if placement.compile else module, optimizer)
    count = iter(range(TRAINING_STEPS // 3, TRAINING_STEPS * 100))

    def step() -> None:
        loss: Tensor = functional.cross_entropy(model(batch), answers)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        if pruner is not None:
            pruner.step(min(next(count), TRAINING_STEPS - 1), TRAINING_STEPS)

    return step, placement


def move_to(module: nn.Module, device: torch.device, placement: Placement) -> None:
    module.to(device)
    if isinstance(module, torch.fx.GraphModule):
        move_constants(module, str(device))
    if placement.channels_last:
        to_memory_format(module, torch.channels_last)


def timed_in_turns(steps: dict[str, Step], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return seconds of one step, a value a round."""
    for step in steps.values():
        for _ in range(3):  # compiles, chooses kernels, fills caches
            step()
    synchronize()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds):
        sys.stderr.write(f"\rround {round_ + 1} of {options.rounds}   ")
        for name, step in steps.items():
            started = time.perf_counter()
            for _ in range(options.steps):
                step()
            synchronize()
            times[name].append((time.perf_counter() - started) / options.steps)
    sys.stderr.write("\n")
    return times


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def gpu_peak_bytes(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_in_child(case: Case, variant: str, options: argparse.Namespace) -> int:
    text = f"{case.model}:{case.size}:{case.batch}"
    command = [sys.executable, "-m", "benchmarks.training.run", "--device", "cpu", "--precision", options.precision]
    command += ["--case", text, "--peak-of", variant, "--threads", str(options.threads)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(answer.stdout.splitlines()[-1]))


def peak_rss_bytes(case: Case, variant: str, options: argparse.Namespace) -> int:
    with ExitStack() as opened:
        step, _ = build_step(case, variant, options, opened)
        before = psutil.Process().memory_info().rss
        for _ in range(2):
            step()
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(kibibytes * 1024 - before, 0)


if __name__ == "__main__":
    sys.exit(main())
