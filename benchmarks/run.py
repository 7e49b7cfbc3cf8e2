"""Run every benchmark, one after another: `make benchmarks`. Exit status 1 when one misses its limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    here = Path(__file__).parent
    found = sorted(".".join(path.parent.relative_to(here).parts) for path in here.glob("*/**/run.py"))
    chosen = sys.argv[1:] or found
    failed = []
    for name in chosen:
        sys.stderr.write(f"== {name}\n")
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}.run"], check=False).returncode:
            failed.append(name)
    sys.stderr.write(f"{len(chosen) - len(failed)} of {len(chosen)} kept their limits. Missed: {failed or 'none'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
