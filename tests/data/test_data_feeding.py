"""Inputs are checked and cast without loss; grids are told from floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators

from edgekit.data.feeding import dequantize, fit_inputs, quantize, read_output
from edgekit.errors import DataError
from edgekit.program.grid import on_grid
from edgekit.records import Quantization, TensorSpec

TOKENS = TensorSpec(name="tokens", dtype="int32", shape=(None, 4))
IMAGE = TensorSpec(name="image", dtype="float32", shape=(1, 2))
QUANTIZED = TensorSpec(
    name="image", dtype="int8", shape=(1, 2), quantization=Quantization(scale=(0.1,), zero_point=(-3,))
)


def test_int64_becomes_int32_when_every_value_fits() -> None:
    (fitted,) = fit_inputs([TOKENS], [np.array([[0, -1, 2**31 - 1, -(2**31)]])])
    assert fitted.dtype == np.int32
    assert fitted.tolist() == [[0, -1, 2**31 - 1, -(2**31)]]


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_int64_is_refused_when_a_value_does_not_fit(value: int) -> None:
    with pytest.raises(DataError, match=r"tokens.*int32.*received int64"):
        fit_inputs([TOKENS], [np.full((1, 4), value)])


def test_batches_are_refused_when_inputs_disagree() -> None:
    other = TensorSpec(name="mask", dtype="bool", shape=(None, 4))
    with pytest.raises(DataError, match="same batch"):
        fit_inputs([TOKENS, other], [np.zeros((2, 4), np.int32), np.zeros((3, 4), bool)])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3), np.float32), r"expected shape \[1, 2\]; received \[1, 3\]"),
        (np.zeros((1, 2), np.float64), r"expected dtype float32; received float64"),
        (np.zeros((1, 2), np.int32), r"expected dtype float32; received int32"),
        (np.zeros((1, 2), bool), r"expected dtype float32; received bool"),
    ],
)
def test_input_is_refused_with_what_was_expected_when_it_does_not_fit(array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_inputs([IMAGE], [array])


def test_half_precision_is_widened_when_the_artifact_takes_float32() -> None:
    (fitted,) = fit_inputs([IMAGE], [np.array([[0.5, -2]], np.float16)])
    assert fitted.dtype == np.float32 and fitted.tolist() == [[0.5, -2.0]]


def test_nan_is_refused_when_the_input_is_quantized() -> None:
    with pytest.raises(DataError, match="NaN"):
        fit_inputs([QUANTIZED], [np.array([[0, np.nan]], np.float32)])


def test_scalar_keeps_its_rank_when_it_fits() -> None:
    (fitted,) = fit_inputs([TensorSpec(name="gain", dtype="float32", shape=())], [np.float32(2)])
    assert fitted.shape == ()


@settings(deadline=None, max_examples=60)
@given(
    scale=st.floats(2**-13, 10, width=32),
    zero_point=st.integers(-128, 127),
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
)
def test_quantize_equals_torch(scale: float, zero_point: int, values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = torch.ops.quantized_decomposed.quantize_per_tensor(
        torch.from_numpy(array), scale, zero_point, -128, 127, torch.int8
    ).numpy()
    rule = Quantization(scale=(scale,), zero_point=(zero_point,))
    np.testing.assert_array_equal(quantize(array, rule), expected)


@settings(deadline=None)
@given(st.integers(-128, 127), st.integers(-128, 127), st.floats(2**-13, 10, width=32))
def test_dequantize_undoes_quantize_when_the_value_lies_on_the_grid(value: int, point: int, scale: float) -> None:
    rule = Quantization(scale=(scale,), zero_point=(point,))
    integers = np.array([value], np.int8)
    spec = TensorSpec(name="y", dtype="int8", shape=(1,), quantization=rule)
    assert quantize(read_output(spec, integers), rule).tolist() == [value]
    assert dequantize(integers, rule).dtype == np.float32


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("axis", [0, 3])
def test_grid_is_recognised_when_weights_were_dequantized(bits: int, axis: int) -> None:
    generator = np.random.default_rng(0)
    levels = 2 ** (bits - 1) - 1
    integers = generator.integers(-levels, levels + 1, (6, 3, 3, 6))
    np.moveaxis(integers, axis, 0)[:, 0, 0, 0] = levels  # the widest weight of each channel defines its scale
    shape = [1, 1, 1, 1]
    shape[axis] = 6
    scale = generator.uniform(1e-3, 0.1, shape).astype(np.float32)
    weights = (integers * scale).astype(np.float32)
    assert on_grid(weights, axis=axis, bits=bits)
    assert not on_grid(weights, axis=1, bits=bits)
    assert not on_grid(generator.normal(size=(6, 3, 3, 6)), axis=axis, bits=bits)


def test_grid_is_recognised_when_a_channel_is_pruned_away() -> None:
    assert on_grid(np.array([[0.0, 0.0], [0.5, 1.0]]), axis=0, bits=8) is False
    assert on_grid(np.array([[0.0, 0.0], [127.0, 3.0]]), axis=0, bits=8)
