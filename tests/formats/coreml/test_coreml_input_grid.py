"""Quantized inputs of int8 packages: the integers are the program's, also where pixels lie between two steps."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny_artifacts import tiny_artifact
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators

from edgekit.program.serialize import save_program
from edgekit.records import ExportRequest, Program, TensorSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from edgekit.formats.coreml.evaluator.execute import Evaluator
    from edgekit.formats.coreml.evaluator.load import load
    from edgekit.formats.coreml.export import export
    from edgekit.formats.coreml.input_grid import round_inputs
    from edgekit.formats.coreml.inspect import inspect

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
_OPS = torch.ops.quantized_decomposed
_SCALE = float(np.float32(1 / 127.5))
"""The scale of a TFLite file whose inputs are pixels from -1 to 1: every one of the 256 lies between two steps."""
_PIXELS = np.arange(256, dtype=np.float32)
_NORMALISED = float(np.float32(1 / 127.5))


class Quantized(nn.Module):
    """Prepares pixels ``[1, 16, 16, 1]``, and puts them on a grid."""

    def __init__(self, zero_point: int = 0, *, normalises: bool = False, stacked: bool = False) -> None:
        super().__init__()
        self.zero_point, self.normalises, self.stacked = zero_point, normalises, stacked

    def forward(self, image):
        if self.normalises:
            image = image.permute(0, 3, 1, 2) * _NORMALISED - 1.0
        if self.stacked:
            image = image.cumsum(1)
        grid = (_SCALE, self.zero_point, -128, 127, torch.int8)
        return _OPS.dequantize_per_tensor(_OPS.quantize_per_tensor(image, *grid), *grid)


def _export(model: nn.Module, image: torch.Tensor, folder: Path) -> Path:
    save_program(torch.export.export(model.eval(), (image,)), folder / "program.pt2")
    program = Program(
        path=folder / "program.pt2",
        precision="int8",
        dynamic_batch=False,
        inputs=(TensorSpec(name="image", dtype="float32", shape=tuple(image.shape)),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=tuple(model(image).shape)),),
        reference=folder / "none.npz",
        calibration=None,
        output_steps=(_SCALE,),
    )
    output = folder / "model.mlpackage"
    export(ExportRequest(program=program, format="coreml", precision="int8", output=output, work_dir=folder))
    return output


def _steps(package: Path, image: torch.Tensor) -> np.ndarray:
    evaluator = Evaluator(package)
    (out,) = evaluator.run({evaluator.inputs[0].name: image.numpy()}).values()
    return np.rint(out.ravel() / _SCALE).astype(int)


def _operations(package: Path):
    graph = load(package)
    return [item for item in graph.functions[graph.default].block.operations if item.type != "const"]


@pytest.mark.parametrize("zero_point", [0, -1])
@pytest.mark.parametrize("normalises", [False, True], ids=["scaled-before", "scaled-inside"])
def test_pixels_between_two_steps_go_where_the_program_sends_them(
    tmp_path: Path, zero_point: int, normalises: bool
) -> None:
    scaled = _PIXELS * np.float32(_NORMALISED) - np.float32(1)
    image = torch.from_numpy((_PIXELS if normalises else scaled).reshape(1, 16, 16, 1))
    found = _steps(_export(Quantized(zero_point, normalises=normalises), image, tmp_path), image)
    integers = np.rint(scaled * np.float32(1 / _SCALE)).astype(int)  # numpy rounds halves to even, as programs do
    expected = np.clip(integers + zero_point, -128, 127) - zero_point
    assert np.abs(np.abs(scaled.astype(np.float64) / _SCALE) % 1 - 0.5).max() < 1e-4  # all lie between two steps
    np.testing.assert_array_equal(found, expected)


def test_only_the_way_to_the_grid_is_float32_when_pixels_are_normalised_inside(tmp_path: Path) -> None:
    image = torch.zeros(1, 16, 16, 1)
    found = [
        (item.type, item.outputs[0].type.dtype)
        for item in _operations(_export(Quantized(normalises=True), image, tmp_path))
    ]
    place = found.index(("round", "float32"))
    assert {dtype for _, dtype in found[:place]} == {"float32"}
    behind = [("mul", "float32"), ("cast", "float16"), ("quantize", "int8"), ("dequantize", "float16")]
    assert found[place + 1 : place + 5] == behind


def test_integer_layers_still_read_a_float16_pair_behind_the_rounded_input() -> None:
    path, _, _ = tiny_artifact("coreml", "cnn", "int8")
    stem = next(item for item in _operations(path) if item.type == "conv")
    by_name = {item.outputs[0].name: item for item in _operations(path)}
    dequantize = by_name[stem.arguments["x"][0].name]
    quantize = by_name[dequantize.arguments["input"][0].name]
    assert [dequantize.type, quantize.type] == ["dequantize", "quantize"]
    assert by_name[quantize.arguments["input"][0].name].outputs[0].type.dtype == "float16"
    kinds = {item.kind for item in inspect(path).operators if item.type == "round"}
    assert kinds == {"quantize"}


def test_inputs_that_are_computed_with_first_are_not_rounded() -> None:
    model, image = Quantized(stacked=True), torch.zeros(1, 16, 16, 1)
    program = torch.export.export(model, (image,))
    assert len(round_inputs(program).graph.nodes) == len(program.graph.nodes)
    rounded = round_inputs(torch.export.export(Quantized(), (image,)))
    assert len(rounded.graph.nodes) == len(program.graph.nodes) - 1 + 3


class Masked(nn.Module):
    """A mask as TensorFlow quantizes it: two numbers on a grid whose zero point is at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.tensor(-128, dtype=torch.int8))
        self.register_buffer("shown", torch.tensor(127, dtype=torch.int8))

    def forward(self, image):
        hidden, shown = (
            _OPS.dequantize_per_tensor(number, 2.0, 127, -128, 127, torch.int8) for number in (self.hidden, self.shown)
        )
        return torch.where(image > 0, shown, hidden)


def test_quantized_number_keeps_its_value_when_its_distance_from_zero_exceeds_int8(tmp_path: Path) -> None:
    image = torch.tensor([[1.0, -1.0]])
    evaluator = Evaluator(_export(Masked(), image, tmp_path))
    (out,) = evaluator.run({evaluator.inputs[0].name: image.numpy()}).values()
    np.testing.assert_array_equal(out, [[0.0, (-128 - 127) * 2.0]])


@given(
    scale=st.floats(2**-14, 100, width=32),
    zero_point=st.integers(-128, 127),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
)
def test_rounding_to_the_grid_changes_no_integer_of_a_float16_quantize(scale, zero_point, values) -> None:
    x = np.clip(np.array(values, np.float32), -300 * scale, 300 * scale).astype(np.float32)
    rounded = np.rint(x * np.float32(1 / scale))
    held, half_scale = (rounded * np.float32(scale)).astype(np.float16), np.float16(scale)
    again = np.rint(held.astype(np.float32) / np.float32(half_scale))
    expected = _OPS.quantize_per_tensor(torch.from_numpy(x), float(scale), zero_point, -128, 127, torch.int8)
    np.testing.assert_array_equal(np.clip(again + zero_point, -128, 127), expected.numpy())
