"""From a recipe's sections to a program on disk, with the samples and figures that go with it."""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.data import ArraySplit, Dataset
from edgekit.errors import DataError
from edgekit.frameworks.requests import ProgramRequest
from edgekit.program.serialize import load_program, save_program
from edgekit.recipe.schema import DataSection, ModelSection, PruneRule, QuantizeRule, TrainSection, VerifySection
from edgekit.records import LayerError, WeightHistogram, from_json

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch's own imports use deprecated parts of Python and torch
    from edgekit.frameworks.pytorch.load import load_module
    from edgekit.frameworks.pytorch.to_program import to_program

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
SIZE = 8


class Striped(nn.Module):
    """Tells horizontal from vertical stripes; also returns a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Linear(8, 64)
        self.head = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.wide(self.conv(x).amax((2, 3))))
        return self.head(hidden), hidden.sum()


def build() -> nn.Module:
    torch.manual_seed(0)
    return Striped()


def load() -> Dataset:
    generator = np.random.default_rng(0)

    def split(count: int) -> ArraySplit:
        labels = np.arange(count) % 2
        stripes = np.where(np.arange(SIZE) % 2, 1.0, -1.0)
        across, down = np.tile(stripes, (SIZE, 1)), np.tile(stripes[:, None], (1, SIZE))
        clean = np.where(labels[:, None, None], across, down)
        noisy = clean + 0.2 * generator.standard_normal(clean.shape)
        return ArraySplit((noisy[..., None].astype(np.float32),), labels)

    return Dataset(train=split(64), validation=split(16), test=split(32), layout="NHWC")


@pytest.fixture(scope="module", autouse=True)
def models():
    module = types.ModuleType("striped_model")
    module.build, module.load = build, load
    sys.modules["striped_model"] = module
    yield
    del sys.modules["striped_model"]


def request(folder: Path, **changes: object) -> ProgramRequest:
    weights = folder / "weights.pt"
    folder.mkdir(exist_ok=True)
    torch.save(build().state_dict(), weights)
    facts: dict[str, object] = {
        "model": ModelSection(source="striped_model:build"),
        "data": DataSection(module="striped_model:load", calibration_samples=32),
        "weights": weights,
        "precision": "fp32",
        "quantize": None,
        "train": TrainSection(epochs=1, batch_size=16, lr=1e-2, device="cpu"),
        "prune": None,
        "distil": None,
        "verify": VerifySection(samples=24),
        "dynamic_batch": False,
        "work_dir": folder / "work",
        "output_dir": folder / "out",
    }
    return ProgramRequest(**{**facts, **changes})


def test_float_program_equals_the_source_on_every_sample(tmp_path: Path) -> None:
    program = to_program(request(tmp_path))
    saved = np.load(program.reference)
    assert saved["input_0"].shape == (24, 1, SIZE, SIZE)  # NHWC data, NCHW model
    assert saved["source_output_0"].shape == (24, 2)
    assert saved["source_output_1"].shape == (24,)  # a scalar a sample
    np.testing.assert_allclose(saved["program_output_0"], saved["source_output_0"], atol=1e-5)
    np.testing.assert_allclose(saved["program_output_1"], saved["source_output_1"], rtol=1e-5)
    graph = load_program(program.path)
    (scores, total) = graph.module()(torch.from_numpy(saved["input_0"][3:4]))
    np.testing.assert_allclose(scores.detach().numpy()[0], saved["program_output_0"][3], atol=1e-5)
    assert total.shape == ()
    assert (program.inputs[0].shape, program.inputs[0].layout) == ((1, 1, SIZE, SIZE), "NCHW")
    assert program.task == "classification"
    assert program.output_steps == (None, None)
    assert program.source_accuracy == program.program_accuracy
    histograms = json.loads((tmp_path / "out" / "weight_histograms.json").read_text())
    assert {from_json(WeightHistogram, item).layer for item in histograms} == {"conv.0", "wide", "head"}


def test_program_is_byte_identical_when_built_twice(tmp_path: Path) -> None:
    first = to_program(request(tmp_path / "a", precision="int8"))
    second = to_program(request(tmp_path / "b", precision="int8"))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_trained_quantization_keeps_pruned_weights_at_zero_and_tells_its_steps(tmp_path: Path) -> None:
    module = build()
    with torch.no_grad():
        module.wide.weight[:, ::2] = 0.0
    asked = request(
        tmp_path,
        precision="int8",
        quantize=QuantizeRule(mode="qat", epochs=2),
        prune=PruneRule(sparsity=0.5),
    )
    torch.save(module.state_dict(), asked.weights)
    program = to_program(asked)
    assert program.output_steps[0] is not None
    constants = load_program(program.path).state_dict
    (wide,) = [tensor for tensor in constants.values() if tensor.shape == (64, 8) and tensor.dtype is torch.int8]
    assert not wide[:, ::2].any()
    assert (wide[:, 1::2] != 0).float().mean() > 0.9
    assert (
        np.load(program.reference)["source_output_0"].tolist()
        == np.load(to_program(request(tmp_path / "float", weights=asked.weights)).reference)["source_output_0"].tolist()
    )  # training the graph did not train the model that it is compared with
    errors = json.loads((tmp_path / "out" / "layer_errors.json").read_text())
    assert [from_json(LayerError, item).layer for item in errors] == ["conv.0", "wide", "head"]


def test_batch_is_free_when_it_is_asked_for(tmp_path: Path) -> None:
    program = to_program(request(tmp_path, precision="w8", dynamic_batch=True))
    assert program.inputs[0].shape == (None, 1, SIZE, SIZE)
    graph = load_program(program.path).module()
    assert [graph(torch.zeros(size, 1, SIZE, SIZE))[0].shape for size in (1, 3)] == [(1, 2), (3, 2)]


def test_int8_is_refused_when_there_are_no_data(tmp_path: Path) -> None:
    class_model = sys.modules["striped_model"]
    class_model.pair = lambda: (build(), torch.zeros(1, 1, SIZE, SIZE))
    model = ModelSection(source="striped_model:pair")
    with pytest.raises(DataError, match="int8 fixes the scales of activations from real samples"):
        to_program(request(tmp_path, model=model, data=None, precision="int8"))
    assert to_program(request(tmp_path, model=model, data=None, precision="int8-dynamic")).calibration is None


def test_useless_calibration_samples_are_warned_of(tmp_path: Path) -> None:
    def constant() -> Dataset:
        data = load()
        grey = ArraySplit((np.full_like(data.train.batch(range(64))[0][0], 0.5),), np.arange(64) % 2)
        return Dataset(train=grey, validation=data.validation, test=data.test, layout="NHWC")

    sys.modules["striped_model"].constant = constant
    data = DataSection(module="striped_model:constant", calibration_samples=32)
    (warning, *_) = to_program(request(tmp_path / "grey", data=data, precision="int8")).warnings
    assert "each of the 32 samples is constant (value 0.5 in the first)" in warning
    assert to_program(request(tmp_path / "float", data=data)).warnings == ()  # no scales are fixed from them


def test_exported_program_with_a_fixed_batch_is_quantized_and_compared_on_many_samples(tmp_path: Path) -> None:
    source = tmp_path / "source.pt2"
    save_program(torch.export.export(build().eval(), (torch.zeros(1, 1, SIZE, SIZE),)), source)
    model = ModelSection(source=str(source))
    asked = request(tmp_path, model=model, precision="int8")
    torch.save(load_module(model).state_dict(), asked.weights)
    assert np.load(to_program(asked).reference)["source_output_0"].shape == (24, 2)
