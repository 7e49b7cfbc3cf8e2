"""Does `edgekit profile` agree with LiteRT's own benchmark tool on the same file?

Both run in fresh processes, pinned to the same core, by turns (AB BA AB ...). Each round gives the ratio of the two
medians; the figure is the median ratio with its 95 % interval. Rounds are added until the whole interval lies
within 3 % of 1 (agrees) or outside (disagrees); a machine too busy to tell gives "inconclusive", which is no pass.
`python -m benchmarks.host_profile.run` writes results/host_profile.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.results import write_result
from edgekit.process import run_child
from edgekit.profile.affinity import pinned
from edgekit.profile.interleave import Comparison, compare_rounds
from edgekit.records import MeasuredProfile, ProfileConfig
from edgekit.targets import ProfileRequest, find_device
from edgekit.targets.host.machine import describe_machine

LIMIT = 0.03
WARMUP_RUNS = 10
RUNS = 60
MIN_ROUNDS, MAX_ROUNDS = 10, 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="a .tflite file; without it a MobileNet is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekit-host-profile-") as folder:
        model = arguments.model or make_model(Path(folder))
        result = compare(model, Path(folder))
    write_result("host_profile", result)
    return 0 if result["passed"] else 1


def make_model(folder: Path) -> Path:
    """Convert in a process of its own: a converter's threads and memory would disturb what follows."""
    output = folder / "mobilenet.tflite"
    script = Path(__file__).with_name("make_model.py")
    subprocess.run([sys.executable, str(script), str(output)], check=True, stdout=sys.stderr)
    return output


def compare(model: Path, folder: Path) -> dict[str, object]:
    machine = describe_machine()
    edgekit_ms: list[tuple[float]] = []
    litert_ms: list[tuple[float]] = []
    comparison, outcome = None, "inconclusive"
    while outcome == "inconclusive" and len(edgekit_ms) < MAX_ROUNDS:
        turns = [(edgekit_median_ms, edgekit_ms), (litert_median_ms, litert_ms)]
        for median_ms, found in turns if len(edgekit_ms) % 2 == 0 else reversed(turns):
            found.append((median_ms(model, folder),))
        if len(edgekit_ms) >= MIN_ROUNDS:
            comparison = compare_rounds(litert_ms, edgekit_ms)
            outcome = judge(comparison)
        sys.stderr.write(f"round {len(edgekit_ms)}: {edgekit_ms[-1][0]:.2f} / {litert_ms[-1][0]:.2f} ms\n")
    return {
        "limit": LIMIT,
        "outcome": outcome,
        "passed": outcome == "agrees",
        "edgekit_over_litert_benchmark": None if comparison is None else ratio(comparison),
        "edgekit_median_ms": [median for (median,) in edgekit_ms],
        "litert_benchmark_median_ms": [median for (median,) in litert_ms],
        "runs_per_round": RUNS,
        "machine": machine,
    }


def ratio(comparison: Comparison) -> dict[str, float]:
    return {"value": comparison.ratio, "low": comparison.ratio_low, "high": comparison.ratio_high}


def judge(comparison: Comparison) -> str:
    low, high = comparison.ratio_low, comparison.ratio_high
    if low >= 1 - LIMIT and high <= 1 + LIMIT:
        return "agrees"
    return "disagrees" if low > 1 + LIMIT or high < 1 - LIMIT else "inconclusive"


def edgekit_median_ms(model: Path, folder: Path) -> float:
    request = ProfileRequest(
        artifact=model,
        artifact_id="tflite/fp32",
        format="tflite",
        open_session="edgekit.formats.tflite.session:open_session",
        reference=None,
        device=find_device("host").model_dump(mode="json"),
        config=ProfileConfig(num_runs=RUNS, warmup_runs=WARMUP_RUNS),
        work_dir=folder,
    )
    entry = "edgekit.targets.host.run:profile_on_host"
    profile = run_child(entry, request, MeasuredProfile, stage="profile", log=folder / "profile.log")
    return profile.latency_ms.median


def litert_median_ms(model: Path, folder: Path) -> float:
    tool, answer = Path(sys.executable).with_name("litert-benchmark"), folder / "litert.json"
    command = [str(tool), f"--model={model}", f"--num_runs={RUNS}", f"--warmup_runs={WARMUP_RUNS}", "--num_threads=1"]
    with pinned(1):  # inherited by the tool
        subprocess.run(
            [*command, f"--result_json={answer}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    return float(json.loads(answer.read_text(encoding="utf-8"))["latency"]["median_ms"])


if __name__ == "__main__":
    sys.exit(main())
