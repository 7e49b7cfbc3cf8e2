"""What is particular to ONNX: the program's own integers, four-bit weights, no traces of the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from contracts.tiny_artifacts import tiny_artifact
from contracts.tiny_programs import CNN_MACS, folded_integers, tiny_program
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.formats.onnx import quantizer
from edgekit.formats.onnx.export import export
from edgekit.formats.onnx.inspect import inspect
from edgekit.formats.onnx.model_file import read_model, write_model
from edgekit.formats.onnx.session import summarize
from edgekit.records import ExportRequest, Precision

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, on copies


def artifact(model: str, precision: Precision) -> Path:
    return tiny_artifact("onnx", model, precision).path


def weights(path: Path, *dtypes: int) -> list[list[int]]:
    tensors = [t for t in onnx.load(path).graph.initializer if t.data_type in dtypes and len(t.dims) > 1]
    return sorted(sorted(numpy_helper.to_array(t).astype(int).ravel().tolist()) for t in tensors)


@pytest.mark.parametrize("precision", ["int8", "w8", "w4"])
def test_artifact_holds_the_programs_own_integers(precision: Precision) -> None:
    expected = sorted(sorted(array.ravel().tolist()) for array in folded_integers(tiny_program("cnn", precision)))
    dtype = TensorProto.INT4 if precision == "w4" else TensorProto.INT8
    assert expected
    assert weights(artifact("cnn", precision), dtype) == expected


def test_dense_layers_hold_the_programs_own_integers_when_dynamic() -> None:
    folded = [sorted(array.ravel().tolist()) for array in folded_integers(tiny_program("cnn", "int8-dynamic"))]
    wide, head = weights(artifact("cnn", "int8-dynamic"), TensorProto.INT8)
    assert wide in folded and head in folded


def test_integer_kernels_run_when_the_program_is_int8() -> None:
    operators = inspect(artifact("cnn", "int8")).operators
    integer = {operator.type: operator for operator in operators if operator.compute_dtype == "int8"}
    assert {"QLinearConv", "QGemm"} <= integer.keys()
    assert all(operator.macs for operator in integer.values())
    assert sum(operator.macs for operator in operators) == CNN_MACS


def test_traces_of_the_machine_are_removed_when_written(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"], name="copy", doc_string="/home/someone/model.py")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone/model.py, line 3")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])], doc_string="/home/x"
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "m.onnx"
    write_model(model, path)
    assert b"/home" not in path.read_bytes()
    assert [node.name for node in read_model(path).graph.node] == ["copy"]


@pytest.mark.parametrize("values", [[-8, 7, 3], [-8, 7, 3, 1]])
def test_four_bit_values_survive_packing(values: list[int]) -> None:
    tensor = numpy_helper.from_array(np.array([values], np.int8), "w")
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])
    graph = helper.make_graph([node], "g", [], [], [tensor])
    model = quantizer.pack_four_bits(helper.make_model(graph))
    (packed,) = model.graph.initializer
    assert packed.data_type == TensorProto.INT4 and len(packed.raw_data) == 2
    assert numpy_helper.to_array(packed).astype(int).tolist() == [values]
    assert list(model.graph.node[0].input) == ["w", "s"]


def test_half_precision_is_refused_when_a_weight_is_too_large() -> None:
    tensor = numpy_helper.from_array(np.array([1e6, -np.inf], np.float32), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(UnsupportedError, match="65504"):
        quantizer.to_half(model)


def test_mask_constant_becomes_the_largest_half_when_it_stands_for_infinity() -> None:
    value = helper.make_tensor_value_info
    mask = numpy_helper.from_array(np.array([np.finfo(np.float32).min, 2e4], np.float32), "m")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "m"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
        [mask],
    )
    model = quantizer.to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    (halved,) = (numpy_helper.to_array(t) for t in model.graph.initializer)
    assert halved.dtype == np.float16 and halved.tolist() == [-65504.0, 20000.0]


def test_free_batch_is_refused_when_the_program_fixes_it(tmp_path: Path) -> None:
    request = ExportRequest(
        program=tiny_program("cnn", "fp32"), format="onnx", precision="fp32", dynamic_batch=True,
        output=tmp_path / "m.onnx", work_dir=tmp_path / "w",
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="batch"):
        export(request)


def test_text_file_is_refused_when_it_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("not a model")
    with pytest.raises(ArtifactError, match="Export it again"):
        read_model(path)


def test_profile_leaves_warmup_out_when_averaged() -> None:
    def event(name: str, duration: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": {"op_name": "Conv"}}

    events = [event("a", 900), event("a", 10), event("a", 30), event("b", 20), event("b", 20), event("b", 20)]
    times = summarize([*events, {"cat": "Session", "name": "run", "dur": 1}], num_runs=2)
    assert [(time.name, time.time_ms, time.share) for time in times] == [("a", 0.02, 0.5), ("b", 0.02, 0.5)]
