"""The same recipe, built twice from nothing in different folders with different caches: are the artifacts identical?

Training is cut to one epoch: whether bytes repeat does not depend on how good the model is.

`python -m benchmarks.determinism.run [RECIPE ...]` writes results/determinism.json; exit status 1 when one differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.results import write_result

ROOT = Path(__file__).parents[2]
RECIPES = ("sample_models/digits/recipe.yaml", "sample_models/text_classifier/recipe.yaml")
KERAS = {"sample_models/digits/recipe.yaml": "sample_models.digits.model_keras:build"}
"""Recipes that are also built from Keras -> the model."""


def digests(recipe: str, folder: Path, model: str | None = None) -> dict[str, str]:
    """Build a recipe, of another model if one is given, with a cache of its own; return the digest of each artifact."""
    environment = {**os.environ, "EDGEKIT_CACHE_DIR": str(folder / "cache")}
    command = [str(Path(sys.executable).parent / "edgekit"), "build", recipe, "-o", str(folder / "build"), "--json"]
    command += ["--set", "profile.targets=[]", "--set", "budgets=[]", "--set", "train.epochs=1"]
    command += ["--set", "verify=" + json.dumps({"samples": 16})]
    if model is not None:
        command += ["--set", f"model={model}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        raise SystemExit(f"{recipe}: edgekit build left with {result.returncode}: {result.stderr[-2000:]}")
    manifest = json.loads(result.stdout)
    return {item["id"]: item["artifact"]["sha256"] for item in manifest["artifacts"] if item["artifact"]}


def main() -> int:
    table = {}
    for recipe in sys.argv[1:] or RECIPES:
        for model in (None, KERAS[recipe]) if recipe in KERAS else (None,):
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory(prefix="another-") as second:
                one = digests(recipe, Path(first), model)
                two = digests(recipe, Path(second) / "deeper" / "place", model)
            table[model or recipe] = {name: one[name] == two.get(name) for name in one}
    passed = all(all(row.values()) and row for row in table.values())
    write_result("determinism", {"identical": table, "passed": passed})
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
