"""Loading: each source works, and each way in which a source can be wrong has its own message."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.data import ArraySplit, Dataset
from edgekit.errors import DataError, ModelError, UntrustedCodeError
from edgekit.frameworks.pytorch.capture import capture, export_program
from edgekit.frameworks.pytorch.describe import describe, describe_source
from edgekit.frameworks.pytorch.load import load_module, load_source
from edgekit.frameworks.requests import ModelRequest
from edgekit.program.serialize import save_program
from edgekit.recipe.schema import ModelSection

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


class TwoHeads(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(10, width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor, scale: Tensor) -> dict[str, Tensor | list[Tensor]]:
        hidden = self.table(ids).mean(1) * scale
        return {"logits": self.head(hidden), "parts": [hidden, hidden.sum()]}


def as_pair() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return TwoHeads(), (torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 4))


def linear(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(width, 2)


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tiny_models")
    module.as_pair, module.linear, module.number, module.text = as_pair, linear, 3, str
    monkeypatch.setitem(sys.modules, "tiny_models", module)


def section(source: str, **more: object) -> ModelSection:
    return ModelSection(source=source, **more)


def test_callable_gives_module_and_example_when_it_returns_both() -> None:
    source = load_source(section("tiny_models:as_pair"))
    assert not source.module.training
    described = describe_source(source, None, name="x")
    assert [(spec.name, spec.dtype, spec.shape) for spec in described.inputs] == [
        ("ids", "int64", (1, 5)),
        ("scale", "float32", (1, 4)),
    ]
    assert [(spec.name, spec.shape) for spec in described.outputs] == [
        ("logits", (1, 3)),
        ("parts_0", (1, 4)),
        ("parts_1", ()),
    ]
    assert described.layers == (("table", "Embedding"), ("head", "Linear"))


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("nowhere.at_all:build", {}, r"model.source: the module 'nowhere.at_all'.*cannot be imported"),
        ("tiny_models:linaer", {}, r"'linaer'.*does not exist. Did you mean 'linear'"),
        ("tiny_models:number", {}, r"'number'.*is no callable"),
        ("tiny_models:text", {}, r"expected tiny_models:text to return a torch.nn.Module.*received str"),
        ("tiny_models:linear", {"args": {"depth": 3}}, r"cannot be called with model.args.*depth"),
        ("missing.pt2", {}, r"there is no file 'missing.pt2'"),
    ],
)
def test_load_names_the_place_when_the_source_is_wrong(source: str, more: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_source(section(source, **more))


def test_load_names_suffixes_when_the_file_is_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"1")
    with pytest.raises(ModelError, match=r"expected a \.pt2, \.onnx.*model\.bin"):
        load_source(section(str(path)))


def test_exported_program_loads_and_may_be_asked_for_training_mode(tmp_path: Path) -> None:
    module, sample = linear().eval(), torch.randn(1, 4)
    save_program(export_program(capture(module, (sample,)), (sample,)), tmp_path / "m.pt2")
    source = load_source(section(str(tmp_path / "m.pt2")))
    assert torch.equal(source.module.train()(sample)[0], module(sample))
    assert source.example_inputs[0].shape == (1, 4)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_state_dict_loads_when_a_builder_is_given(tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    trained = nn.Linear(4, 2)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    loaded = load_module(section(str(path), builder="tiny_models:linear"))
    assert torch.equal(loaded.weight, trained.weight)
    with pytest.raises(ModelError, match=r"holds weights only. Give model.builder"):
        load_module(section(str(path)))
    with pytest.raises(ModelError, match=r"weight has shape \[2, 4\], the model needs \[2, 5\]"):
        load_module(section(str(path), builder="tiny_models:linear", args={"width": 5}))


def test_state_dict_names_keys_when_they_do_not_fit(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 4), "other": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"missing from the file: bias; unknown to the model: other"):
        load_module(section("tiny_models:linear"), weights=tmp_path / "w.pt")


def test_weights_are_refused_when_the_file_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(nn.Linear(4, 2).state_dict(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"w\.pt.*truncated"):
        load_module(section("tiny_models:linear"), weights=path)


class Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_is_not_run_when_it_carries_code(tmp_path: Path, legacy: bool) -> None:
    mark, path = tmp_path / "executed", tmp_path / "w.pt"
    torch.save({"weight": Touch(str(mark))}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UntrustedCodeError, match="--trust"):
        load_module(section("tiny_models:linear"), weights=path)
    assert not mark.exists()


def test_whole_module_loads_when_it_is_trusted(tmp_path: Path) -> None:
    path, trained = tmp_path / "w.pt", nn.Linear(4, 2)
    torch.save(trained, path)
    with pytest.raises(UntrustedCodeError, match=r"torch\.nn\.modules\.linear\.Linear"):
        load_module(section("tiny_models:linear"), weights=path)
    loaded = load_module(section("tiny_models:linear", trust=True), weights=path)
    assert torch.equal(loaded.weight, trained.weight)


def test_model_and_data_are_held_together_when_shapes_differ() -> None:
    split = ArraySplit((np.zeros((4, 7), np.float32),), np.zeros(4, np.int64))
    dataset = Dataset(train=split, validation=split, test=split)
    with pytest.raises(DataError, match=r"received float32 \[1, 7\] and raised RuntimeError"):
        describe_source(load_source(section("tiny_models:linear")), dataset, name="x")
    two = ArraySplit((np.zeros((4, 4), np.float32),) * 2, None)
    with pytest.raises(DataError, match=r"forward takes 1 inputs \(input\); the data give 2|received float32"):
        describe_source(
            load_source(section("tiny_models:linear")), Dataset(train=two, validation=two, test=two), name="x"
        )


def test_channels_last_images_reach_the_model_as_nchw() -> None:
    split = ArraySplit((np.zeros((4, 8, 6, 3), np.float32),), np.zeros(4, np.int64))
    dataset = Dataset(train=split, validation=split, test=split, layout="NHWC")
    from edgekit.frameworks.pytorch.load import Source

    described = describe_source(Source(nn.Conv2d(3, 2, 1).eval()), dataset, name="x")
    assert described.inputs[0].shape == (1, 3, 8, 6)
    assert described.inputs[0].layout == "NCHW"


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class OneBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


def test_export_names_the_line_when_control_flow_depends_on_data() -> None:
    with pytest.raises(ModelError, match=r"control flow depends on the data.*if x\.sum\(\) > 0"):
        capture(Branching(), (torch.randn(2, 3),))


def test_export_says_so_when_the_batch_size_is_fixed() -> None:
    with pytest.raises(ModelError, match="one batch size only"):
        capture(OneBatch(), (torch.randn(2, 3),))


def test_onnx_loads_without_torchvision(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.eye(3, 4, dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = lambda name, shape: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)  # noqa: E731
    graph = onnx.helper.make_graph([node], "g", [value("x", [1, 3])], [value("y", [1, 4])], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    source = load_source(section(str(path)))
    assert "torchvision" not in sys.modules
    assert source.module(torch.ones(1, 3)).tolist() == [[1.0, 1.0, 1.0, 0.0]]
    assert source.example_inputs[0].shape == (1, 3)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ModelError, match=r"m\.onnx.*truncated or no valid ONNX"):
        load_source(section(str(path)))


class _Undecided(nn.Module):
    def forward(self, x):
        if x.mean() > 0:
            return x
        return -x


def test_control_flow_on_data_is_refused_with_its_line_before_any_training(monkeypatch):
    module = types.ModuleType("undecided")
    module.build = lambda: (_Undecided(), torch.ones(1, 2))
    monkeypatch.setitem(sys.modules, "undecided", module)
    with pytest.raises(ModelError, match=r"control flow depends on the data \(at .*\.py:\d+, `if x\.mean\(\) > 0:`\)"):
        describe(ModelRequest(model=ModelSection(source="undecided:build"), data=None))
