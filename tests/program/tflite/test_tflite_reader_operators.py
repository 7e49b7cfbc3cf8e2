"""Every operator that is read: LiteRT runs the file, torch the program, both must agree."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from reader_cases import CASES
    from reader_models import convert, decibels, output_steps, random_input, read_program, run_litert, run_read, tf

pytestmark = pytest.mark.filterwarnings("ignore")

FLOAT_ONLY = {  # what the quantizer leaves in floats comes to the same, and takes time to convert
    "add_n", "all", "any", "arg_max", "arg_min", "atan2", "ceil", "compare", "conv_3d", "cos", "cumsum",
    "cumsum_from_end", "elu", "floor", "floor_div", "floor_mod", "local_response", "pow", "round", "sign", "sin",
    "square", "one_hot_inner",
    "reverse",  # behind a pooling the file gives it another scale than its input, and LiteRT copies the integers
}  # fmt: skip
NOISE = {"elu": 90.0}  # written as exp(x) - 1


@pytest.mark.parametrize("precision", ["float", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_program_computes_what_litert_computes(name: str, precision: str, tmp_path: Path) -> None:
    if precision == "int8" and name in FLOAT_ONLY:
        pytest.skip("no int8 file to compare with: left in floats, or the runtime itself is wrong")
    case = CASES[name]
    kinds = case.dtypes or (tf.float32,) * len(case.shapes)
    path = convert(case.function, case.shapes, tmp_path / "m.tflite", precision=precision, dtypes=kinds)
    rng = np.random.default_rng(0)
    inputs = [random_input(rng, shape, kind) for shape, kind in zip(case.shapes, kinds, strict=True)]
    read = read_program(path)
    expected, actual = run_litert(path, inputs), run_read(read, inputs)
    for wanted, found, step in zip(expected, actual, output_steps(read), strict=True):
        assert (wanted.shape, wanted.dtype) == (found.shape, found.dtype)
        if step is None:
            assert decibels(wanted, found) > NOISE.get(name, 100.0)
        else:
            assert np.abs(wanted - found).max() <= 1.01 * step
