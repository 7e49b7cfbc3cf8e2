"""Does the framework cost anything on the device? The same network with the same weights, from PyTorch and from Keras.

Both are converted to ExecuTorch at fp32 and int8 (after training) by `edgekit convert`, and the two programs are timed
by turns on one pinned core. The figure is the median time of the one from Keras over the one from PyTorch, with its
95 % interval; rounds are added until the interval lies within 5 % of 1 or outside.
`python -m benchmarks.frameworks.run [MODEL ...]` writes results/frameworks.json, after every model, and keeps the rows
of models that it is not asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, write_result
from edgekit.process import run_child

ROOT = Path(__file__).parents[2]
MODELS = ("keyword_spotting", "image_classification", "person_detection", "mobilenet_v2")
PRECISIONS = ("fp32", "int8")
LIMIT = 0.05
RUNS_PER_ROUND = 20
FIRST_ROUNDS, MORE_ROUNDS, ATTEMPTS = 20, 20, 4


@dataclass(frozen=True, slots=True)
class TimingRequest:
    """Two ExecuTorch programs to time by turns."""

    pytorch: Path
    keras: Path


@dataclass(frozen=True, slots=True)
class Timing:
    """Keras's time over PyTorch's, and how sure that is."""

    ratio: float
    low: float
    high: float
    rounds: int
    outcome: str


def main() -> int:
    results = earlier_rows()
    for model in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory(prefix="edgekit-frameworks-") as folder:
            results[model] = measure(model, Path(folder))
        sys.stderr.write(f"{model}: {json.dumps(results[model])}\n")
        write(results)
    return 1 if slow_programs(results) else 0


def earlier_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run, none where there was none."""
    path = FOLDER / "frameworks.json"
    return json.loads(path.read_text())["result"]["models"] if path.is_file() else {}


def slow_programs(results: dict[str, dict[str, Any]]) -> list[str]:
    """Name the programs that are slower from Keras, or that were not measured well enough to tell."""
    return [
        f"{model} {precision}"
        for model, row in results.items()
        for precision, found in row.items()
        if found["timing"]["outcome"] not in ("same", "keras is faster")
    ]


def write(results: dict[str, dict[str, Any]]) -> None:
    """Write what is known so far, in the order of models."""
    ordered = {model: results[model] for model in sorted(results)}
    slow = slow_programs(ordered)
    write_result("frameworks", {"limit": LIMIT, "models": ordered, "slow": slow, "passed": not slow})


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Convert both twins of a sample model and time them at each precision."""
    make_weights = [sys.executable, "-m", "benchmarks.frameworks.make_weights", model, str(folder)]
    subprocess.run(make_weights, check=True, cwd=ROOT, stdout=sys.stderr)
    manifests = {
        "pytorch": convert(model, "pytorch", folder / "weights.pt", folder),
        "keras": convert(model, "keras", folder / "weights.npz", folder),
    }
    found = {}
    for precision in PRECISIONS:
        artifacts = {name: artifact(manifest, precision) for name, manifest in manifests.items()}
        paths = {name: folder / name / item["artifact"]["path"] for name, item in artifacts.items()}
        timing = run_child(
            "benchmarks.frameworks.run:time_both",
            TimingRequest(pytorch=paths["pytorch"], keras=paths["keras"]),
            Timing,
            stage="time",
            log=folder / "time.log",
            timeout_s=1800,
        )
        found[precision] = {
            "timing": {name: getattr(timing, name) for name in Timing.__dataclass_fields__},
            **{name: summary(item) for name, item in artifacts.items()},
        }
    return found


def convert(model: str, framework: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Convert one twin and return the manifest."""
    command = [
        str(Path(sys.executable).parent / "edgekit"),
        "convert",
        f"sample_models.{model}.model_{framework}:build",
    ]
    command += ["--to", "executorch", "--precision", ",".join(PRECISIONS), "--json", "-o", str(folder / framework)]
    command += ["--set", f"model.weights={weights}", "--set", "verify.samples=32"]
    command += ["--set", "data=" + json.dumps({"module": f"sample_models.{model}.data:load"})]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{model} from {framework}: edgekit convert left with {result.returncode}: {result.stderr}")
    manifest: dict[str, Any] = json.loads(result.stdout)
    return manifest


def artifact(manifest: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return what the manifest says of one artifact."""
    return next(item for item in manifest["artifacts"] if item["id"] == f"executorch/{precision}")


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that explain a difference in time."""
    coverage = report["artifact"]["coverage"]
    return {
        "size_bytes": report["artifact"]["size_bytes"],
        "partitions": coverage["partitions"],
        "delegated": coverage["operators"],
        "sqnr_db": min(output["sqnr_db"] for output in report["parity"]["versus_source"]),
    }


def time_both(request: TimingRequest) -> Timing:
    """Time two programs by turns, in a process of their own."""
    from edgekit.contracts import load_entry
    from edgekit.formats import format_spec
    from edgekit.profile.affinity import pinned
    from edgekit.profile.feed import generated_inputs
    from edgekit.profile.interleave import interleave

    open_session = load_entry(format_spec("executorch").open_session)
    with pinned(1), open_session(request.pytorch, 1) as first, open_session(request.keras, 1) as second:
        executes = [session.prepare(list(generated_inputs(session.inputs, seed=0))) for session in (first, second)]
        rounds = FIRST_ROUNDS
        for attempt in range(ATTEMPTS):
            found = interleave(
                executes[0], executes[1], rounds=rounds, runs_per_round=RUNS_PER_ROUND, warmup_runs=10, seed=attempt
            )
            outcome = judge(found.ratio_low, found.ratio_high)
            if outcome != "inconclusive":
                break
            rounds += MORE_ROUNDS
    return Timing(ratio=found.ratio, low=found.ratio_low, high=found.ratio_high, rounds=rounds, outcome=outcome)


def judge(low: float, high: float) -> str:
    """Say what an interval of the ratio means against the limit."""
    if high < 1 - LIMIT:
        return "keras is faster"
    if low > 1 + LIMIT:
        return "keras is slower"
    return "same" if low >= 1 - LIMIT and high <= 1 + LIMIT else "inconclusive"


if __name__ == "__main__":
    sys.exit(main())
