"""How long `edgekit --help` and `import edgekit` take beside a bare typer program and a bare interpreter.

Limit: 1.5 times. Interleaved, as ratios of medians. `python -m benchmarks.startup.run` writes results/startup.json.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import write_result

BARE_TYPER = """
import typer
app = typer.Typer()
@app.command()
def a(name: str = typer.Option("x", help="A name.")) -> None: ...
@app.command()
def b() -> None: ...
app()
"""
LIMIT = 1.5
ROUNDS = 15


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bare.py"
        program.write_text(BARE_TYPER)
        commands = {
            "bare typer --help": [python, str(program), "--help"],
            "edgekit --help": [str(Path(python).parent / "edgekit"), "--help"],
            "import typer": [python, "-c", "import typer"],
            "import edgekit": [python, "-c", "import edgekit"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(seconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        "edgekit --help / bare typer --help": medians["edgekit --help"] / medians["bare typer --help"],
        "import edgekit / import typer": medians["import edgekit"] / medians["import typer"],
    }
    passed = all(ratio <= LIMIT for ratio in ratios.values())
    write_result("startup", {"limit": LIMIT, "ratios": ratios, "median_s": medians, "rounds": ROUNDS, "passed": passed})
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
