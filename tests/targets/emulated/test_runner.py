"""The guest runners, run under plain qemu: what they compute, what they list, and how they fail."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from contracts.tiny_programs import tiny_program

from edgekit.contracts import load_entry
from edgekit.errors import DataError, ToolError, UnsupportedError
from edgekit.records import ExportRequest, TensorSpec
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.runner import (
    EXIT_FAILED,
    RunnerRequest,
    guest_command,
    nodes_of_profile,
    read_result,
    runtime_of,
)
from edgekit.targets.emulated.setup import Toolchain

pytestmark = pytest.mark.filterwarnings("ignore")  # the converters warn about themselves

A72 = SimpleNamespace(
    name="cortex-a72", qemu_cpu="cortex-a72", implementer=0x41, part=0xD08, clock_mhz=1500,
    features=("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid"),
    l1d_kib=32, l1i_kib=48, l2_kib=1024, l3_kib=None,
)  # fmt: skip
IMAGE = TensorSpec(name="image", dtype="float32", shape=(1, 4))
RESULT = {
    "runtime": "LiteRT", "version": "2", "samples": 2, "outputs_repeat": True, "load_ns": 1, "run_ns": [2],
    "arena_bytes": None, "heap_peak_bytes": 3, "peak_rss_bytes": 4, "emulated": True, "profile": None, "operators": [],
    "inputs": [{"name": "image", "dtype": "float32", "shape": [1, 4]}],
    "outputs": [{"name": "logits", "dtype": "int8", "shape": [1, 2], "file": "./output_0.bin"}],
}  # fmt: skip


def run(toolchain: Toolchain, request: RunnerRequest, samples):
    """Run a request behind an A72 and read its result."""
    done = start(toolchain, request, samples)
    return read_result(request, done.returncode, done.stderr)


def start(toolchain: Toolchain, request: RunnerRequest, samples, *options: str) -> subprocess.CompletedProcess[str]:
    if request.runtime not in toolchain.runners:
        pytest.skip(f"the {request.runtime} runner is not built here")
    command = guest_command(toolchain, request, samples)
    persona = make_persona(A72, toolchain)
    libraries = ":".join(map(str, toolchain.libraries[request.runtime]))
    return subprocess.run(
        [str(toolchain.qemu), *options, "-L", str(persona.root), "-cpu", persona.qemu_cpu, *command],
        capture_output=True, text=True, errors="replace", check=False, timeout=120,
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
    )  # fmt: skip


def export(format_name: str, model: str, precision: str, folder: Path, *, dynamic: bool = False) -> Path:
    spec = importlib.import_module(f"edgekit.formats.{format_name}.spec").SPEC
    backend = spec.backends[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = tiny_program(model, backend.programs[precision], dynamic_batch=dynamic)
        request = ExportRequest(
            program=program, format=format_name, precision=precision, backend=backend.name, dynamic_batch=dynamic,
            output=folder / f"model{spec.suffix}", work_dir=folder / "work",
        )  # fmt: skip
        request.work_dir.mkdir()
        load_entry(spec.export)(request)
    return request.output


def open_session(format_name: str, path: Path):
    return load_entry(f"edgekit.formats.{format_name}.session:open_session")(path, 1)


def random_inputs(specs, count: int, batch: int):
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(count):
        shapes = [tuple(batch if size is None else size for size in spec.shape) for spec in specs]
        samples.append(
            [
                generator.standard_normal(shape).astype(np.float32)
                if spec.quantization or spec.dtype == "float32"
                else generator.integers(0, 2, shape).astype(spec.dtype)
                for spec, shape in zip(specs, shapes, strict=True)
            ]
        )
    return samples


@pytest.mark.parametrize(
    ("format_name", "model", "precision", "batch"),
    [
        ("tflite", "cnn", "int8", 1),
        ("tflite", "two_heads", "fp32", 1),
        ("tflite", "cnn", "fp32", 3),
        ("executorch", "attention", "fp32", 1),
        ("executorch", "cnn", "fp32", 3),
        ("onnx", "cnn", "int8", 1),
        ("onnx", "two_heads", "fp32", 1),
        ("onnx", "cnn", "fp32", 3),
    ],
)
def test_runner_computes_what_the_host_does_when_it_runs_an_artifact(
    emulated_toolchain: Toolchain, tmp_path: Path, format_name: str, model: str, precision: str, batch: int
) -> None:
    path = export(format_name, model, precision, tmp_path, dynamic=batch > 1)
    with open_session(format_name, path) as session:
        samples = random_inputs(session.inputs, 2, batch)
        expected = [session.run(sample) for sample in samples]
        request = RunnerRequest(
            runtime=runtime_of(format_name), model=path, inputs=session.inputs, outputs=session.outputs,
            work_dir=tmp_path / "run", runs=2,
        )  # fmt: skip
    result = run(emulated_toolchain, request, samples)
    assert len(result.outputs) == 2 and result.outputs_repeat and len(result.run_ns) == 2
    assert result.heap_peak_bytes > 10_000 and result.peak_rss_bytes > 1_000_000
    assert result.version == emulated_toolchain.versions[request.runtime]
    assert len(result.operators) >= 3
    for got, wanted in zip(result.outputs, expected, strict=True):
        for one, other in zip(got, wanted, strict=True):
            assert one.shape == other.shape and one.dtype == other.dtype
            if precision == "int8":
                np.testing.assert_array_equal(one, other)
            else:
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_onnx_runtime_starts_no_thread_when_told_to_use_one(emulated_toolchain: Toolchain, tmp_path: Path) -> None:
    """Its telemetry would: a thread of its own, whose work also made counts differ from run to run."""
    path = export("onnx", "cnn", "fp32", tmp_path)
    with open_session("onnx", path) as session:
        samples = random_inputs(session.inputs, 1, 1)
        request = RunnerRequest(
            runtime="onnxruntime", model=path, inputs=session.inputs, outputs=session.outputs, work_dir=tmp_path / "run"
        )
    calls = start(emulated_toolchain, request, samples, "-strace").stderr
    assert "Unknown syscall 5000" in calls
    assert "clone" not in calls


def test_runner_names_the_operator_when_onnx_runtime_lacks_it(emulated_toolchain: Toolchain, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Frobnicate", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    request = RunnerRequest(
        runtime="onnxruntime", model=tmp_path / "model.onnx", inputs=(IMAGE,), outputs=(IMAGE,), work_dir=tmp_path
    )
    with pytest.raises(UnsupportedError, match="operator Frobnicate"):
        run(emulated_toolchain, request, [[np.zeros((1, 4), np.float32)]])


@pytest.mark.parametrize(("runtime", "suffix"), [("litert", "tflite"), ("executorch", "pte"), ("onnxruntime", "onnx")])
def test_runner_reports_the_stage_when_a_file_is_no_model(
    emulated_toolchain: Toolchain, tmp_path: Path, runtime: str, suffix: str
) -> None:
    model = tmp_path / f"model.{suffix}"
    model.write_text("hello")
    request = RunnerRequest(runtime=runtime, model=model, inputs=(IMAGE,), outputs=(IMAGE,), work_dir=tmp_path)
    with pytest.raises(ToolError, match=rf"{runtime} failed on the guest to load model\.{suffix}"):
        run(emulated_toolchain, request, [[np.zeros((1, 4), np.float32)]])
    with pytest.raises(ToolError, match="cannot open the model"):
        run(emulated_toolchain, replace(request, model=tmp_path / "absent"), [[np.zeros((1, 4), np.float32)]])


def request_in(folder: Path) -> RunnerRequest:
    return RunnerRequest(
        runtime="litert", model=folder / "m.tflite", inputs=(IMAGE,), outputs=(IMAGE,), work_dir=folder
    )


def fake_toolchain() -> Toolchain:
    paths = {name: Path(name) for name in ("qemu", "sysroot", "plugin", "coresim")}
    runners = {"litert": Path("/built/litert_runner")}
    return Toolchain(**paths, qemu_version="7.2", runners=runners, libraries={}, versions={})


def test_command_writes_all_samples_when_there_are_several(tmp_path: Path) -> None:
    samples = [[np.full((1, 4), value, np.float32)] for value in (1.0, 2.0)]
    command = guest_command(fake_toolchain(), replace(request_in(tmp_path), profile_nodes=True), samples)
    assert command[:3] == ["/built/litert_runner", "--model", str(tmp_path / "m.tflite")]
    assert "--shape" not in command and command[-2:] == ["--operators", "--profile-nodes"]
    written = np.fromfile(tmp_path / "input_0.bin", "<f4")
    np.testing.assert_array_equal(written, [1.0] * 4 + [2.0] * 4)


def test_command_gives_shapes_when_the_batch_is_free(tmp_path: Path) -> None:
    free = replace(request_in(tmp_path), inputs=(replace(IMAGE, shape=(None, 4)),))
    command = guest_command(fake_toolchain(), free, [[np.zeros((3, 4), np.float32)]])
    assert command[command.index("--shape") + 1] == "3,4"
    with pytest.raises(DataError, match="samples of one shape"):
        guest_command(fake_toolchain(), free, [[np.zeros((size, 4), np.float32)] for size in (1, 2)])


def test_command_is_refused_when_there_is_no_runner_or_no_number(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    with pytest.raises(UnsupportedError, match=r"built: litert.*edgekit targets setup emulated"):
        guest_command(fake_toolchain(), replace(request, runtime="onnxruntime"), [])
    with pytest.raises(UnsupportedError, match="holds strings"):
        guest_command(fake_toolchain(), replace(request, inputs=(replace(IMAGE, dtype="str"),)), [[np.array(["a"])]])
    with pytest.raises(DataError, match="at least one sample"):
        guest_command(fake_toolchain(), request, [])
    with pytest.raises(UnsupportedError, match="coreml artifact on an emulated phone"):
        runtime_of("coreml")


def test_outputs_are_read_for_each_sample_when_the_guest_ran_in_its_folder(tmp_path: Path) -> None:
    request = request_in(tmp_path)
    request.result.write_text(json.dumps(RESULT))
    np.array([1, 2, 3, 4], np.int8).tofile(tmp_path / "output_0.bin")
    result = read_result(request, 0, "")
    assert [one.tolist() for (one,) in result.outputs] == [[[1, 2]], [[3, 4]]]
    assert result.arena_bytes is None and result.run_ns == (2,)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"error": {"stage": "load", "message": "a\nb", "operator": "FOO"}}, "its operator FOO: a b"),
        ({"error": {"stage": "run", "message": "m", "operator": "FOO"}}, "to run m.tflite at the operator FOO: m"),
        ({"error": {"stage": "memory", "message": "out of memory", "operator": None}}, "out of memory"),
        ([], "no JSON object"),
        ("{", "cannot be read"),
        (None, r"status 4 and wrote no result for m\.tflite; it said: last words"),
    ],
)
def test_result_becomes_an_error_when_the_runner_failed(tmp_path: Path, document, match: str) -> None:
    request = request_in(tmp_path)
    if document is not None:
        request.result.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises((ToolError, UnsupportedError), match=match):
        read_result(request, EXIT_FAILED, "last words")


@pytest.mark.parametrize("change", [{"outputs": []}, {"samples": 3}, {"load_ns": "soon"}, {"samples": None}])
def test_result_is_refused_when_it_contradicts_itself(tmp_path: Path, change) -> None:
    request = request_in(tmp_path)
    request.result.write_text(json.dumps({**RESULT, **change}))
    np.array([1, 2, 3, 4], np.int8).tofile(tmp_path / "output_0.bin")
    with pytest.raises(ToolError, match="cannot be read"):
        read_result(request, 0, "")


def test_nodes_are_those_of_one_run_when_the_profile_has_several() -> None:
    node = {"cat": "Node", "name": "conv_kernel_time", "args": {"op_name": "Conv"}}
    fence = {"cat": "Node", "name": "conv_fence_before", "args": {"op_name": "Conv"}}
    loaded, ran = ({"cat": "Session", "name": name} for name in ("session_initialization", "model_run"))
    (found,) = nodes_of_profile([loaded, fence, node, ran, node, ran])
    assert (found.name, found.type, found.delegated, found.node) == ("conv", "Conv", False, None)
