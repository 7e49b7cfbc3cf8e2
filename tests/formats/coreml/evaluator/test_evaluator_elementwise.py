"""Elementwise operations, activations and reductions against coremltools' value inference, torch and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formats.coreml.evaluator.mil_programs import Case, check

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(2, 3, 4)).astype(np.float32) * 2
UNIT = RANDOM.uniform(-0.9, 0.9, size=(2, 3)).astype(np.float32)
POSITIVE = RANDOM.uniform(0.1, 3, size=(2, 3)).astype(np.float32)
HALVES = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5], np.float32)
INTEGERS = np.array([[-7, 7, -8], [8, 3, -3]], np.int32)
BY = np.array([[3, -3, 5], [3, 2, 2]], np.int32)
IMAGE = RANDOM.normal(size=(1, 3, 2, 2)).astype(np.float32)
ALPHA, BETA = np.array([0.5, -1.0, 2.0], np.float32), np.array([1.0, 0.3, -2.0], np.float32)


UNARY = [
    *(Case(name, {"x": X}) for name in ("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "sign")),
    *(Case(name, {"x": X}) for name in ("sin", "sinh", "square", "tan", "tanh", "sigmoid", "relu", "softsign")),
    *(Case(name, {"x": UNIT}) for name in ("acos", "asin", "atanh")),
    *(Case(name, {"x": POSITIVE}) for name in ("sqrt", "rsqrt", "log", "inverse")),
    *(Case(name, {"x": POSITIVE}, {"epsilon": 0.5}, note="epsilon") for name in ("rsqrt", "log", "inverse")),
    Case("round", {"x": HALVES}),
    Case("identity", {"x": X}, expected=X),
    Case("logical_not", {"x": X > 0}),
    Case("clip", {"x": X}, {"alpha": -0.5, "beta": 0.7}),
    Case("threshold", {"x": X}, {"alpha": 0.3}),
    Case("cast", {"x": X}, {"dtype": "int32"}, note="towards-zero"),
    Case("cast", {"x": INTEGERS}, {"dtype": "fp32"}, note="float"),
    Case("cast", {"x": HALVES}, {"dtype": "bool"}, note="bool"),
    Case("cast", {"x": np.array([-1, 70000], np.int32)}, {"dtype": "uint16"}, [65535, 4464], ios=17, note="wraps"),
    Case("cast", {"x": np.array([-100, 100], np.int32)}, {"dtype": "int8"}, [-100, 100], ios=17, note="int8"),
]
ACTIVATIONS = [
    Case("relu6", {"x": X * 5}, expected=lambda x: x.clip(0, 6)),
    Case("leaky_relu", {"x": X}, {"alpha": 0.1}),
    Case("elu", {"x": X}, {"alpha": 0.7}),
    Case("silu", {"x": X}, expected=lambda x: F.silu(torch.from_numpy(x)).numpy()),
    Case("softplus", {"x": X * 20}, expected=lambda x: F.softplus(torch.from_numpy(x).double(), threshold=1e3).numpy()),
    Case("scaled_tanh", {"x": X}, {"alpha": 2.0, "beta": 0.3}),
    Case("sigmoid_hard", {"x": X}, {"alpha": 0.2, "beta": 0.5}),
    Case("clamped_relu", {"x": X}, {"alpha": 0.3, "beta": 1.1}),
    Case("clamped_relu", {"x": X}, {"alpha": 2.0, "beta": -1.0}, lambda x: np.minimum(-1, np.where(x >= 0, x, 2 * x)),
         note="negative-limit"),
    Case("linear_activation", {"x": X}, {"alpha": 2.0, "beta": 0.3}),
    Case("thresholded_relu", {"x": X}, {"alpha": 0.5}),
    Case("prelu", {"x": IMAGE}, {"alpha": ALPHA},
         lambda x: F.prelu(torch.from_numpy(x), torch.from_numpy(ALPHA)).numpy()),
    Case("softplus_parametric", {"x": IMAGE}, {"alpha": ALPHA, "beta": BETA},
         lambda x: ALPHA[:, None, None] * np.log1p(np.exp(BETA[:, None, None] * x))),
    Case("softmax", {"x": X}, {"axis": 1}),
    Case("softmax", {"x": X * 1e4}, expected=lambda x: torch.softmax(torch.from_numpy(x), -1).numpy(), note="large"),
    Case("gelu", {"x": X}, expected=lambda x: F.gelu(torch.from_numpy(x)).numpy()),
    Case("gelu", {"x": X}, {"mode": "TANH_APPROXIMATION"}, note="tanh",
         expected=lambda x: F.gelu(torch.from_numpy(x), approximate="tanh").numpy()),
    Case("gelu", {"x": X}, {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x / (1 + np.exp(-1.702 * x)), note="sigmoid"),
]  # fmt: skip
BINARY = [
    *(Case(name, {"x": X, "y": X[:1, ::-1].copy()}) for name in ("add", "sub", "mul", "maximum", "minimum")),
    *(Case(name, {"x": X, "y": np.float32([1, -2, 3, 0.5])}) for name in ("real_div", "floor_div", "mod")),
    *(Case(name, {"x": INTEGERS, "y": BY}, note="integers") for name in ("floor_div", "mod", "add", "mul")),
    Case("pow", {"x": POSITIVE, "y": UNIT}),
    *(
        Case(name, {"x": HALVES, "y": np.flip(HALVES).copy()})
        for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
    ),
    *(Case(name, {"x": X > 0, "y": X > 1}) for name in ("logical_and", "logical_or", "logical_xor")),
    Case("select", {"cond": X > 0, "a": X, "b": X[:1] * 2}, expected=lambda cond, a, b: np.where(cond, a, b)),
]
SIZES = RANDOM.uniform(0.5, 2, size=(2, 3, 4)).astype(np.float32)
_REDUCED = ("max", "min", "sum", "mean", "prod", "l1_norm", "l2_norm", "log_sum", "log_sum_exp", "sum_square")
REDUCTIONS = [
    *(Case(f"reduce_{name}", {"x": SIZES}, {"axes": [0, -1]}) for name in _REDUCED),
    *(Case(f"reduce_{name}", {"x": SIZES}, {"axes": [1], "keep_dims": True}, note="kept") for name in _REDUCED),
    *(Case(f"reduce_{name}", {"x": X}, note="all") for name in ("sum", "max", "mean")),
    Case("reduce_sum", {"x": INTEGERS}, {"axes": [1]}, note="integers"),
    Case("reduce_argmax", {"x": np.float32([[1, 3, 3], [2, 2, 0]])}, {"axis": 1}, [1, 0], note="first-of-equals"),
    Case("reduce_argmin", {"x": X}, {"axis": 1, "keep_dims": True}),
    Case("reduce_argmax", {"x": X}, {"axis": -1, "output_dtype": "uint16"}, lambda x: x.argmax(-1), ios=17),
]


@pytest.mark.parametrize("case", UNARY, ids=str)
def test_unary_operation_gives_the_reference(case: Case) -> None:
    check(case, UNARY)


@pytest.mark.parametrize("case", ACTIVATIONS, ids=str)
def test_activation_gives_the_reference(case: Case) -> None:
    check(case, ACTIVATIONS)


@pytest.mark.parametrize("case", BINARY, ids=str)
def test_binary_operation_gives_the_reference(case: Case) -> None:
    check(case, BINARY)


@pytest.mark.parametrize("case", REDUCTIONS, ids=str)
def test_reduction_gives_the_reference(case: Case) -> None:
    check(case, REDUCTIONS)
