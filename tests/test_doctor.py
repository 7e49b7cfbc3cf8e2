from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgekit import doctor
from edgekit.records import from_json, to_json

REQUIREMENTS = [
    "numpy>=2.0",
    "numpy>=1.0; extra == 'tflite'",
    "surely-not-installed>=3; extra == 'tflite'",
    "pydantic>=99; extra == 'onnx'",
    "pydantic>=1; extra == 'coreml'",
    "edgekit[tflite]; extra == 'all'",
]


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: REQUIREMENTS)


def test_report_says_which_packages_are_missing_or_old(requirements: None) -> None:
    found = doctor.examine()
    extras = {extra.name: extra for extra in found.extras}
    assert set(extras) == {"tflite", "onnx", "coreml"}
    assert {package.name: package.satisfied for package in extras["tflite"].packages} == {
        "numpy": True,
        "surely-not-installed": False,
    }
    assert extras["coreml"].satisfied
    problems = "\n".join(found.problems)
    assert "surely-not-installed missing" in problems
    assert "pip install 'edgekit[tflite]'" in problems
    assert f"pydantic is {metadata.version('pydantic')}, needs >=99" in problems


def test_report_tells_formats_that_cannot_export_or_run(requirements: None) -> None:
    backends = {(fact.format, fact.backend): fact for fact in doctor.examine().backends}
    assert not backends["tflite", "xnnpack"].exports
    assert backends["tflite", "xnnpack"].reason == "pip install 'edgekit[tflite]'"
    if sys.platform != "darwin":
        assert backends["coreml", "default"].exports
        assert backends["coreml", "default"].runs  # with the reference evaluator
        assert not backends["executorch", "coreml"].runs
        assert backends["executorch", "coreml"].reason


def test_report_is_whole_and_survives_json() -> None:
    found = doctor.examine()
    assert {extra.name for extra in found.extras} >= {"pytorch", "tflite", "executorch", "coreml", "onnx", "keras"}
    assert {"all", "dev"}.isdisjoint(extra.name for extra in found.extras)
    assert found.disk_free_bytes > 0
    assert "host" in [device.device for device in found.devices]
    assert from_json(doctor.DoctorReport, to_json(found)) == found


def test_report_warns_when_the_disk_is_almost_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "not" / "yet" / "there"))
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 2**62)
    found = doctor.examine()
    assert any("EDGEKIT_CACHE_DIR" in problem for problem in found.problems)
    assert found.cache_folder == tmp_path / "not" / "yet" / "there"


def test_report_names_a_gpu_that_the_installed_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0+cpu")
    assert "built without CUDA" in doctor._gpu()
    monkeypatch.setattr(metadata, "version", lambda _: "2.13.0")
    assert doctor._gpu().endswith("training runs on CUDA")


def test_examination_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'tensorflow', 'coremltools', 'executorch', 'ai_edge_litert', 'onnxruntime', 'litert_torch'}"
    code = f"import sys; from edgekit.doctor import examine; examine(); sys.exit(str({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"
