"""From a recipe's sections to a program on disk; what formats make of it is in the format contract."""

from __future__ import annotations

import json
import sys
import types
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import keras_programs
from contracts.tiny_programs import tiny_program
from frameworks.keras import tiny_keras

from edgekit.errors import DataError, RecipeError
from edgekit.frameworks.requests import ProgramRequest
from edgekit.program.serialize import load_program
from edgekit.recipe.schema import DataSection, ModelSection, PruneRule, QuantizeRule, TrainSection, VerifySection
from edgekit.records import LayerError, Precision, Program, WeightHistogram, from_json

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch's own imports use deprecated parts of Python and torch
    from edgekit.frameworks.keras.to_program import to_program
from edgekit.frameworks.keras.weights_file import write_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated:UserWarning"),
]
NAME = "keras_program_models"


def build(library: str = "tf_keras") -> Any:
    return tiny_keras.convolutions(library)


@pytest.fixture(scope="module", autouse=True)
def models():
    module = types.ModuleType(NAME)
    module.build, module.load = build, tiny_keras.images  # NCHW data: turned for the model
    sys.modules[NAME] = module
    torch.set_num_threads(1)
    yield
    del sys.modules[NAME]


def request(folder: Path, *, library: str = "tf_keras", **changes: object) -> ProgramRequest:
    folder.mkdir(exist_ok=True, parents=True)
    write_weights(build(library), folder / "weights.npz")
    facts: dict[str, object] = {
        "model": ModelSection(source=f"{NAME}:build", args={"library": library}),
        "data": DataSection(module=f"{NAME}:load", calibration_samples=48),
        "weights": folder / "weights.npz",
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@cache
def program_of(precision: Precision, folder: Path) -> Program:
    return to_program(request(folder / precision, library="keras", precision=precision))


def decibels(reference: np.ndarray, value: np.ndarray) -> float:
    error = float(np.square(value.astype(np.float64) - reference).sum())
    return 300.0 if error == 0 else 10 * float(np.log10(np.square(reference.astype(np.float64)).sum() / error))


def test_float_program_equals_the_source_on_every_sample(folder: Path) -> None:
    program = program_of("fp32", folder)
    saved = np.load(program.reference)
    assert saved["input_0"].shape == (24, 8, 8, 3)  # NCHW data, NHWC model
    assert decibels(saved["source_output_0"], saved["program_output_0"]) > 110
    assert np.load(program.calibration)["input_0"].shape == (48, 8, 8, 3)
    (output,) = load_program(program.path).module()(torch.from_numpy(saved["input_0"][3:4]))
    np.testing.assert_allclose(output.detach().numpy()[0], saved["program_output_0"][3], atol=1e-5)
    assert (program.inputs[0].shape, program.inputs[0].layout) == ((1, 8, 8, 3), "NHWC")
    assert (program.outputs[0].name, program.outputs[0].shape) == ("head", (1, 3))
    assert program.task == "classification"
    assert program.output_steps == (None,)
    assert program.source_accuracy == program.program_accuracy is not None
    assert program.origin is not None and program.origin.read_bytes()[4:8] == b"TFL3"
    assert not (program.path.parent / "layer_errors.json").exists()
    histograms = json.loads((program.path.parent / "weight_histograms.json").read_text())
    names = [from_json(WeightHistogram, item).layer for item in histograms]
    assert names == ["stem", "depthwise", "point", "head"]


def test_int8_program_tells_the_error_of_each_layer(folder: Path) -> None:
    program = program_of("int8", folder)
    saved = np.load(program.reference)
    assert decibels(saved["source_output_0"], saved["program_output_0"]) > 25
    errors = [
        from_json(LayerError, item) for item in json.loads((program.path.parent / "layer_errors.json").read_text())
    ]
    assert [error.layer for error in errors] == ["stem", "depthwise", "point", "head"]
    assert all(20 < error.sqnr_db < 60 for error in errors)


def test_program_is_byte_identical_when_built_in_another_folder(folder: Path, tmp_path: Path) -> None:
    first = program_of("fp32", folder)
    second = to_program(request(tmp_path / "elsewhere", library="keras"))
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize(("precision", "floor_db"), [("fp16", 50), ("int16x8", 33), ("w8", 35), ("w4", 12)])
def test_program_agrees_with_the_source_when_the_converter_made_it(precision: Precision, floor_db: float) -> None:
    program = tiny_program("cnn", precision, build=keras_programs.build_program)  # the format contract has its file
    saved = np.load(program.reference)
    assert decibels(saved["source_output_0"], saved["program_output_0"]) > floor_db
    assert program.precision == precision


def test_trained_scales_and_zeros_reach_the_program(tmp_path: Path) -> None:
    asked = request(
        tmp_path,
        precision="int8",
        quantize=QuantizeRule(mode="qat", epochs=1, skip=("head",)),
        prune=PruneRule(sparsity=0.5),
    )
    model = build()
    kernel = model.get_layer("point").kernel
    kernel.assign(np.where(np.arange(16) % 2, kernel.numpy(), 0.0))
    write_weights(model, asked.weights)
    program = to_program(asked)
    constants = load_program(program.path).state_dict
    (point,) = [
        tensor for tensor in constants.values() if tensor.shape == (16, 16, 1, 1) and tensor.dtype is torch.int8
    ]
    assert not point[::2].any() and (point[1::2] != 0).float().mean() > 0.9
    assert [layer.name for layer in program.skipped] == ["head"]
    assert program.sparsity > 0.1


def test_batch_is_free_when_it_is_asked_for(tmp_path: Path) -> None:
    program = to_program(request(tmp_path, precision="w8", dynamic_batch=True))
    assert program.inputs[0].shape == (None, 8, 8, 3)
    graph = load_program(program.path).module()
    assert [graph(torch.zeros(size, 8, 8, 3))[0].shape for size in (1, 3)] == [(1, 3), (3, 3)]


def test_int8_is_refused_when_there_are_no_data_and_generated_inputs_verify_the_rest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="int8 fixes the scales of activations from real samples"):
        to_program(request(tmp_path, data=None, precision="int8"))
    program = to_program(request(tmp_path, data=None))
    assert program.calibration is None
    saved = np.load(program.reference)
    assert saved["input_0"].std() > 0.9
    assert decibels(saved["source_output_0"], saved["program_output_0"]) > 110


def test_unknown_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'haed' matches no layer"):
        to_program(request(tmp_path, precision="int8", quantize=QuantizeRule(skip=("haed",))))


def test_useless_calibration_samples_are_warned_of(tmp_path: Path) -> None:
    def constant() -> Any:
        data = tiny_keras.images()
        split = replace(data.train, inputs=(np.full_like(data.train.inputs[0], 0.5),))
        return replace(data, train=split)

    sys.modules[NAME].constant = constant
    data = DataSection(module=f"{NAME}:constant", calibration_samples=32)
    (warning, *_) = to_program(request(tmp_path, data=data, precision="int8")).warnings
    assert "each of the 32 samples is constant (value 0.5 in the first)" in warning


def test_file_is_a_source_without_weights_of_its_own(folder: Path, tmp_path: Path) -> None:
    origin = program_of("int8", folder).origin
    asked = request(tmp_path, model=ModelSection(source=str(origin)), precision="int8", data=None)
    program = to_program(replace(asked, weights=tmp_path / "none.npz"))
    assert program.origin is not None and program.origin.read_bytes() == origin.read_bytes()
    saved = np.load(program.reference)
    assert np.abs(saved["source_output_0"] - saved["program_output_0"]).max() <= 2.01 * program.output_steps[0]
