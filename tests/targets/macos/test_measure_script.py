"""The script that is copied to a Mac: run as a user would run it, on runtimes that exist here too."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_mac import FakeMac
from tiny_package import write_package
from tiny_tflite import write_tflite

from edgekit.store.atomic import digest_path
from edgekit.targets.devices import packaged_targets
from edgekit.targets.measure_job import SCRIPTS
from edgekit.targets.measurement import Measurement, MeasurementDocument, ProblemCode, read_document

FOLDER = packaged_targets() / "macos"
WEIGHTS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
SAMPLES = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "in.npz", input_0=SAMPLES)
    return tmp_path / "in.npz"


def run(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, str(FOLDER / "measure.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def measured(artifact: Path, inputs: Path, *more: object, python: str = sys.executable) -> tuple[int, Measurement]:
    result = artifact.parent / "result.json"
    given = ("--artifact", artifact, "--inputs", inputs, "--result", result, "--num-runs", 4, "--warmup-runs", 1)
    done = run(*given, *more, python=python)
    assert result.is_file(), done.stderr
    return done.returncode, read_document(result).measurements[0]


@pytest.fixture
def onnx_artifact(tmp_path: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.ascontiguousarray(WEIGHTS.T), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def executorch_artifact(tmp_path: Path) -> Path:
    import torch
    from executorch.exir import to_edge

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.from_numpy(WEIGHTS.T.copy())

    program = to_edge(torch.export.export(Net(), (torch.zeros(1, 6),))).to_executorch()
    (tmp_path / "net.pte").write_bytes(program.buffer)
    return tmp_path / "net.pte"


@pytest.fixture
def tflite_artifact(tmp_path: Path) -> Path:
    return write_tflite(tmp_path / "net.tflite", WEIGHTS)


@pytest.mark.filterwarnings("ignore")  # what exporters say of themselves
@pytest.mark.parametrize(
    ("artifact", "runtime"),
    [("tflite_artifact", "LiteRT"), ("onnx_artifact", "ONNX Runtime"), ("executorch_artifact", "ExecuTorch")],
)
def test_runtimes_are_timed_and_their_outputs_kept(
    artifact: str, runtime: str, inputs: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(artifact)
    status, found = measured(path, inputs)
    assert status == 0
    assert found.runtime is not None
    assert found.runtime.name == runtime
    assert found.artifact.sha256 == digest_path(path)
    (once,) = found.runs
    assert (once.compute_units, len(once.samples_ms), len(once.load_ms)) == ("cpu", 4, 3)
    assert once.memory is not None
    assert 0 < once.memory.baseline <= once.memory.peak
    assert found.outputs is not None
    assert np.allclose(found.outputs.tensors[0].array(), SAMPLES @ WEIGHTS.T, atol=1e-5)


def test_outputs_are_limited_to_the_bytes_that_were_asked_for(tflite_artifact: Path, inputs: Path) -> None:
    _, found = measured(tflite_artifact, inputs, "--max-output-bytes", 3 * 4 * 2)
    assert found.outputs is not None
    assert found.outputs.tensors[0].shape == (2, 3)


def test_folder_has_the_digest_that_edgekit_gives_it(tmp_path: Path, inputs: Path) -> None:
    mac = FakeMac.at(tmp_path / "mac")
    mac.computes(np.ascontiguousarray(WEIGHTS.T))
    package = write_package(tmp_path / "net.mlpackage", np.ascontiguousarray(WEIGHTS.T))
    status, found = measured(package, inputs, "--compute-units", "cpuOnly,all", python=mac.python)
    assert status == 0
    assert found.artifact.sha256 == digest_path(package)
    assert [one.compute_units for one in found.runs] == ["cpuOnly", "all"]
    assert found.plan is not None
    assert found.plan.compute_units == "cpuOnly"
    assert [operation.type for operation in found.plan.operations] == ["ios17.linear", "ios17.cast"]


def test_no_plan_is_noted_when_macos_is_too_old_for_it(tmp_path: Path, inputs: Path) -> None:
    mac = FakeMac.at(tmp_path / "mac")
    mac.computes(np.ascontiguousarray(WEIGHTS.T))
    mac.becomes(macos="14.1")
    package = write_package(tmp_path / "net.mlpackage", np.ascontiguousarray(WEIGHTS.T))
    status, found = measured(package, inputs, python=mac.python)
    assert (status, found.plan) == (0, None)
    assert found.notes == ("no plan of compute units: MLComputePlan needs macOS 14.4 or newer",)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("net.tflite", None, "artifact_unreadable"),
        ("net.zip", b"x", "artifact_unreadable"),
        ("net.tflite", b"no model", "runtime_failed"),
    ],
)
def test_artifact_that_cannot_run_is_a_problem_in_the_document(
    name: str, content: bytes | None, code: str, tmp_path: Path, inputs: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, found = measured(tmp_path / name, inputs)
    assert status == 1
    assert found.error is not None
    assert found.error.code == code


@pytest.mark.parametrize(
    "arrays",
    [{"other": SAMPLES}, {"input_1": SAMPLES}, {"input_0": SAMPLES[:0]}, {"input_0": SAMPLES, "input_1": SAMPLES}],
)
def test_inputs_that_do_not_fit_are_a_problem_in_the_document(
    arrays: dict[str, Any], tflite_artifact: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    status, found = measured(tflite_artifact, tmp_path / "bad.npz")
    assert status == 1
    assert found.error is not None
    assert found.error.code == "inputs_unreadable"


def test_core_ml_elsewhere_is_refused(tmp_path: Path, inputs: Path) -> None:
    (tmp_path / "net.mlpackage").mkdir()
    status, found = measured(tmp_path / "net.mlpackage", inputs)
    assert status == 1
    assert found.error is not None
    assert found.error.code == "wrong_system"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--result", "r"],
        ["--result", "r", "--artifact", "a", "--inputs", "i", "--num-runs", "0"],
        ["--result", "r", "--artifact", "a", "--inputs", "i", "--compute-units", "gpuOnly"],
        ["--result", "r", "--artifact", "a", "--inputs", "i", "--compute-units", ""],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "error:" in done.stderr


def test_probe_says_what_this_machine_is(tmp_path: Path) -> None:
    assert run("--probe", "--result", tmp_path / "probe.json").returncode == 0
    found: MeasurementDocument = read_document(tmp_path / "probe.json")
    assert found.measurements == ()
    assert found.machine["system"].startswith("Linux")
    assert found.machine["numpy"] == np.__version__


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_of_the_oldest_python_that_it_promises(name: str) -> None:
    tree = ast.parse((FOLDER / name).read_text(), feature_version=(3, 9))
    strict = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and any(keyword.arg == "strict" for keyword in node.keywords)
    ]
    assert not strict  # zip(strict=) came with 3.10


def test_scripts_and_schema_have_the_same_problem_codes_and_files() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(SCRIPTS)
    module = script_constants()
    assert set(module["CODES"]) == set(ProblemCode.__args__)


def script_constants() -> dict[str, Any]:
    program = "import json, measure; print(json.dumps({'CODES': measure.CODES}))"
    command = [sys.executable, "-B", "-c", program]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
