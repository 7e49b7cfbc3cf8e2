"""What is particular to TFLite: names, the program's own integers, calibration, damaged files, operator times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from contracts.tiny_artifacts import tiny_artifact
from contracts.tiny_programs import cached_folder, folded_integers, tiny_program
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import ArtifactError, ToolError, UnsupportedError
from edgekit.formats.tflite import profiler
from edgekit.formats.tflite.export import export
from edgekit.formats.tflite.inspect import inspect
from edgekit.formats.tflite.session import open_session
from edgekit.program.tflite import flatbuffer, quantizer
from edgekit.records import ExportRequest, Operator, Precision

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, on copies


def artifact(model: str, precision: Precision) -> Path:
    return tiny_artifact("tflite", model, precision).path


def integer_weights(path: Path) -> list[list[int]]:
    model = flatbuffer.read_model(path)
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = flatbuffer.constant_of(model, tensor)
        if data is not None and flatbuffer.dtype_of(tensor) == "int8" and len(flatbuffer.shape_of(tensor)) > 1:
            found.append(sorted(data.view(np.int8).tolist()))
    return sorted(found)


@pytest.mark.parametrize("precision", ["int8", "w8", "int8-dynamic"])
def test_artifact_holds_the_programs_own_integers(precision: Precision) -> None:
    expected = sorted(sorted(array.ravel().tolist()) for array in folded_integers(tiny_program("cnn", precision)))
    assert expected
    assert integer_weights(artifact("cnn", precision)) == expected


def test_operators_carry_source_layers_when_exported() -> None:
    names = {operator.type: operator.name for operator in inspect(artifact("cnn", "fp32")).operators}
    assert names["DEPTHWISE_CONV_2D"] == "depthwise"
    assert names["FULLY_CONNECTED"] == "head"
    assert names["PAD"] == "stem/pad"


def test_delegate_takes_nothing_and_says_why_when_activations_are_int16() -> None:
    operators = inspect(artifact("cnn", "int16x8")).operators
    assert {operator.compute_dtype for operator in operators if operator.macs} == {"int16"}
    assert {operator.reason for operator in operators} == {"XNNPACK has no int16 kernels"}


def test_weights_of_unpacked_constants_are_counted_once_when_weight_only() -> None:
    operators = inspect(artifact("cnn", "w8")).operators
    assert {operator.weight_dtype for operator in operators if operator.macs} == {"int8"}
    unpacking = [operator for operator in operators if operator.kind == "dequantize"]
    assert unpacking and all(operator.weight_bytes == 0 for operator in unpacking)


def test_int16_ranges_hold_every_sample_when_the_first_is_small() -> None:
    content = artifact("cnn", "fp32").read_bytes()
    samples = [{"image": np.full((1, 3, 16, 16), value, np.float32)} for value in (0.01, 0.02, 50.0)]
    model = schema.ModelT.InitFromPackedBuf(quantizer.quantize_int16x8(content, iter(samples)), 0)
    (source,) = flatbuffer.model_inputs(model)
    assert source.quantization is not None
    # AEQ's moving average would end at 0.05 x 50: the last sample would be clipped to a twentieth
    assert source.quantization.scale[0] * 32767 >= 50.0 * 0.999


def test_half_precision_is_refused_when_a_weight_is_too_large() -> None:
    model = flatbuffer.read_model(artifact("cnn", "fp32"))
    graph = model.subgraphs[0]
    conv = next(o for o in graph.operators if flatbuffer.operator_name(model, o) == "CONV_2D")
    tensor = graph.tensors[conv.inputs[1]]
    values = np.array(model.buffers[tensor.buffer].data).view(np.float32)
    values[0] = 1e6
    model.buffers[tensor.buffer].data = values.view(np.uint8)
    path = cached_folder() / "large.tflite"
    flatbuffer.write_model(model, path)
    with pytest.raises(UnsupportedError, match="65504"):
        quantizer.halve_weights(path.read_bytes())


def test_free_batch_is_refused_when_an_output_has_none(tmp_path: Path) -> None:
    request = ExportRequest(
        program=tiny_program("two_heads", "fp32"), format="tflite", precision="fp32", dynamic_batch=True,
        output=tmp_path / "m.tflite", work_dir=tmp_path / "w",
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="batch"):
        export(request)
    assert not request.output.exists()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_damaged_file_is_refused_or_read_but_never_anything_else(data: st.DataObject) -> None:
    whole = bytearray(artifact("cnn", "fp32").read_bytes())
    path = cached_folder() / "damaged.tflite"
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 64)) :]
        path.write_bytes(whole)
        with pytest.raises(ArtifactError):
            flatbuffer.read_model(path)
        return
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        flatbuffer.read_model(path)
    except ArtifactError as error:
        assert "Export it again" in str(error) or "Convert it again" in str(error)


def test_operator_times_name_layers_when_the_runtime_times_them() -> None:
    image = np.zeros((1, 3, 16, 16), np.float32)
    with open_session(artifact("cnn", "fp32"), 1) as session:
        times = session.operator_times([image], 20)
    assert [time.name for time in times if time.macs] == ["stem", "depthwise", "residual", "wide", "head"]
    assert all(time.delegated for time in times)


def test_operator_times_are_refused_when_the_runtime_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "version", lambda _name: "9.9.0")
    with pytest.raises(UnsupportedError, match=r"9\.9\.0.*2\.3\.x"):
        profiler.profile_operators(Path("any"), [], [], num_runs=1, num_threads=1)


def _operator(index: int, *, delegated: bool, macs: int = 0) -> Operator:
    return Operator(
        index=index, name=f"layer{index}", type="CONV_2D", delegated=delegated, compute_dtype="float32", macs=macs,
        reason=None if delegated else "why",
    )  # fmt: skip


def test_event_times_are_averaged_and_named_by_node_when_known() -> None:
    runs = [
        [profiler.Event("Convolution (NHWC, F32) IGEMM", True, 0, 10), profiler.Event("CAST", False, 1, 30)],
        [profiler.Event("Convolution (NHWC, F32) IGEMM", True, 0, 30), profiler.Event("CAST", False, 1, 30)],
    ]
    first, second = profiler.summarize(runs, [_operator(0, delegated=True, macs=9), _operator(1, delegated=False)])
    assert (first.name, first.time_ms, first.share, first.macs) == ("layer0", 0.02, pytest.approx(0.4), 9)
    assert (second.name, second.time_ms, second.reason) == ("layer1", 0.03, "why")


def test_events_are_refused_when_runs_differ() -> None:
    runs = [[profiler.Event("A", True, 0, 1)], [profiler.Event("B", True, 0, 1)]]
    with pytest.raises(ToolError, match="differ"):
        profiler.summarize(runs, [])
