"""``edgekit inspect --placement``: the options, what they refuse, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contracts.tiny_artifacts import program_for, tiny_artifact

from edgekit.cli.main import run
from edgekit.pipeline.entries import export_artifact
from edgekit.records import ExportRequest, Placement, from_json
from edgekit.report.placement import agreement_text
from edgekit.store.atomic import digest_path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def package() -> Path:
    return tiny_artifact("coreml", "attention", "fp16").path


def measurement(package: Path, folder: Path, sha256: str | None) -> Path:
    """A document of targets/macos/measure.py with a plan of two operations."""
    planned = [
        {"name": "logits", "type": "ios17.cast", "preferred": "neural_engine", "supported": ["cpu"], "cost": 0.1},
        {"name": "softmax_cast_fp16", "type": "ios17.softmax", "preferred": "cpu", "supported": ["cpu"], "cost": None},
    ]
    document = {
        "schema_version": 1,
        "kind": "edgekit-measurement",
        "tool": {"name": "measure.py", "version": "1"},
        "machine": {"chip": "Apple M2", "system": "macOS 14.5"},
        "conditions": {},
        "measurements": [
            {
                "artifact": {"name": package.name, "format": "coreml", "sha256": sha256},
                "runtime": {"name": "Core ML", "version": "14.5", "delegates": [], "package": None},
                "config": {"num_runs": 1, "warmup_runs": 0, "num_threads": 1},
                "compile_ms": 1.0,
                "runs": [
                    {
                        "compute_units": "all",
                        "load_ms": [9.0, 2.0],
                        "first_ms": 3.0,
                        "samples_ms": [1.0, 1.1],
                        "memory": {"baseline": 0, "after_load": 1, "peak": 2, "method": "phys_footprint"},
                        "error": None,
                    }
                ],
                "outputs": None,
                "plan": {"compute_units": "all", "operations": planned},
                "notes": [],
                "error": None,
            }
        ],
        "error": None,
    }
    path = folder / "result.json"
    path.write_text(json.dumps(document))
    return path


def test_placement_is_one_json_document_with_the_plan_of_a_mac_beside_it(package: Path, tmp_path, capfd) -> None:
    result = measurement(package, tmp_path, digest_path(package))
    options = ["--chip", "m2", "--compute-units", "cpuAndNeuralEngine", "--plan", str(result), "--json"]
    assert run(["inspect", str(package), *options]) == 0
    document = json.loads(capfd.readouterr().out)
    placement, plan = from_json(Placement, document["placement"]), from_json(Placement, document["plan"])
    assert (placement.kind, placement.chip, placement.compute_units) == ("predicted", "m2", "cpuAndNeuralEngine")
    gather = next(item for item in placement.operations if item.type == "gather")
    assert gather.units == ("cpu",)
    assert gather.sources
    assert (plan.kind, plan.chip) == ("measured", "Apple M2")
    assert agreement_text(placement, plan).endswith("agrees with the prediction on 1 of 2 operations")


def test_plan_of_another_artifact_is_refused(package: Path, tmp_path, capfd) -> None:
    result = measurement(package, tmp_path, "0" * 64)
    assert run(["inspect", str(package), "--plan", str(result)]) == 2
    assert "expected a measurement of this artifact" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--inputs", "samples.npz"], "expected --compute beside it"),
        (["--compute-units", "gpuOnly"], "cpuAndNeuralEngine"),
        (["--plan", "missing.json"], "missing.json"),
    ],
)
def test_wrong_option_is_exit_2_with_the_way_out(package: Path, arguments: list[str], words: str, capfd) -> None:
    assert run(["inspect", str(package), *arguments]) == 2
    assert words in capfd.readouterr().err


def test_other_formats_are_refused_before_any_work(tmp_path, capfd) -> None:
    artifact = tmp_path / "model.onnx"
    artifact.write_bytes(b"")
    assert run(["inspect", str(artifact), "--placement"]) == 2
    err = capfd.readouterr().err
    assert "--placement for ONNX" in err
    assert "only Core ML decides on the device" in err


def test_every_exported_package_carries_its_placement(tmp_path) -> None:
    program = program_for("coreml", "two_heads", "fp16")
    request = ExportRequest(
        program=program,
        format="coreml",
        precision="fp16",
        output=tmp_path / "model.mlpackage",
        work_dir=tmp_path / "work",
    )
    artifact = export_artifact(request)
    assert artifact.placement is not None
    assert (artifact.placement.kind, artifact.placement.compute_units) == ("predicted", "all")
    assert [item.name for item in artifact.placement.operations] == [item.name for item in artifact.operators]
