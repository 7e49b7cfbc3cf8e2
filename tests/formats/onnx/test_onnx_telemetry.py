"""ONNX Runtime stays silent: none of its maker's telemetry, which keeps a database in the user's cache."""

import os
import subprocess
import sys


def test_runtime_starts_no_telemetry_when_edgekit_imports_it(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", "import edgekit.formats.onnx.session"],
        env={**environment, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    assert not list(tmp_path.rglob("*Microsoft*"))
