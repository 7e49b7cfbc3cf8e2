"""Convolutions, pools, products, normalisations and recurrent layers against torch and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formats.coreml.evaluator.mil_programs import Case, check, mb, run
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

RANDOM = np.random.default_rng(5)


def _normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def _t(array) -> Tensor:
    return torch.from_numpy(np.asarray(array))


IMAGE, LINE, VOLUME = _normal(2, 4, 7, 8), _normal(2, 4, 9), _normal(1, 2, 4, 5, 6)
W2, W1, W3, GROUPED = _normal(6, 4, 3, 2), _normal(6, 4, 3), _normal(3, 2, 2, 2, 3), _normal(8, 1, 3, 3)
UP2, UP1, B6 = _normal(4, 3, 3, 4), _normal(4, 3, 5), _normal(6)


def _same(x, kernel, stride, lower=False):
    pads = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((int(np.ceil(size / s)) - 1) * s + k - size, 0)
        pads.append((total - total // 2, total // 2) if lower else (total // 2, total - total // 2))
    return F.pad(_t(x), [amount for pair in reversed(pads) for amount in pair])


CONVOLUTIONS = [
    Case("conv", {"x": IMAGE}, {"weight": W2, "bias": B6}, lambda x: F.conv2d(_t(x), _t(W2), _t(B6)), atol=1e-4),
    Case("conv", {"x": IMAGE}, {"weight": W2, "strides": [2, 3], "dilations": [2, 1], "pad_type": "custom",
         "pad": [1, 1, 2, 2]}, note="custom", atol=1e-4,
         expected=lambda x: F.conv2d(_t(x), _t(W2), None, (2, 3), (1, 2), (2, 1))),
    Case("conv", {"x": IMAGE}, {"weight": W2, "pad_type": "custom", "pad": [0, 2, 1, 0]},
         lambda x: F.conv2d(F.pad(_t(x), [1, 0, 0, 2]), _t(W2)), note="asymmetric", atol=1e-4),
    Case("conv", {"x": IMAGE}, {"weight": W2, "pad_type": "same", "strides": [2, 2]},
         lambda x: F.conv2d(_same(x, (3, 2), (2, 2)), _t(W2), None, 2), note="same", atol=1e-4),
    Case("conv", {"x": IMAGE}, {"weight": W2, "pad_type": "same_lower"},
         lambda x: F.conv2d(_same(x, (3, 2), (1, 1), lower=True), _t(W2)), note="same-lower", atol=1e-4, ios=16),
    Case("conv", {"x": IMAGE}, {"weight": GROUPED, "groups": 4},
         lambda x: F.conv2d(_t(x), _t(GROUPED), groups=4), note="grouped", atol=1e-4),
    Case("conv", {"x": LINE}, {"weight": W1}, lambda x: F.conv1d(_t(x), _t(W1)), note="1d", atol=1e-4),
    Case("conv", {"x": VOLUME}, {"weight": W3}, lambda x: F.conv3d(_t(x), _t(W3)), note="3d", atol=1e-4),
    Case("conv_transpose", {"x": IMAGE}, {"weight": UP2, "strides": [2, 3]},
         lambda x: F.conv_transpose2d(_t(x), _t(UP2), None, (2, 3)), atol=1e-4),
    Case("conv_transpose", {"x": IMAGE}, {"weight": UP2, "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]},
         lambda x: F.conv_transpose2d(_t(x), _t(UP2), None, 2, 1), note="custom", atol=1e-4),
    Case("conv_transpose", {"x": IMAGE}, {"weight": UP2, "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1],
         "output_shape": [2, 3, 14, 17]}, note="output-shape", atol=1e-4,
         expected=lambda x: F.conv_transpose2d(_t(x), _t(UP2), None, 2, 1, (1, 1))),
    Case("conv_transpose", {"x": LINE}, {"weight": UP1, "strides": [2], "pad_type": "same"},
         lambda x: F.conv_transpose1d(_t(x), _t(UP1), None, 2)[..., 1:19], note="same-1d", atol=1e-4),
]  # fmt: skip
POOLS = [
    Case("max_pool", {"x": IMAGE}, {"kernel_sizes": [3, 2], "strides": [2, 2], "pad_type": "valid"},
         lambda x: F.max_pool2d(_t(x), (3, 2), 2)),
    Case("max_pool", {"x": IMAGE - 9}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom",
         "pad": [1, 1, 1, 1], "ceil_mode": True}, lambda x: F.max_pool2d(_t(x), 3, 2, 1, ceil_mode=True), note="ceil"),
    Case("max_pool", {"x": LINE}, {"kernel_sizes": [2], "pad_type": "valid"}, lambda x: F.max_pool1d(_t(x), 2, 1),
         note="1d"),
    Case("avg_pool", {"x": IMAGE}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom",
         "pad": [1, 1, 1, 1]}, lambda x: F.avg_pool2d(_t(x), 3, 2, 1)),
    Case("avg_pool", {"x": IMAGE}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom",
         "pad": [1, 1, 1, 1], "ceil_mode": True}, lambda x: F.avg_pool2d(_t(x), 3, 2, 1, ceil_mode=True), note="ceil"),
    Case("avg_pool", {"x": IMAGE}, {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "same",
         "exclude_padding_from_average": True}, note="excluded",
         expected=lambda x: F.avg_pool2d(_same(x, (3, 3), (2, 2)), 3, 2)
         / F.avg_pool2d(_same(np.ones_like(x), (3, 3), (2, 2)), 3, 2)),
    Case("avg_pool", {"x": VOLUME}, {"kernel_sizes": [2, 2, 2], "pad_type": "valid"},
         lambda x: F.avg_pool3d(_t(x), 2, 1), note="3d"),
    Case("l2_pool", {"x": IMAGE}, {"kernel_sizes": [2, 2], "strides": [2, 2], "pad_type": "valid"},
         lambda x: F.lp_pool2d(_t(x), 2, 2, 2)),
]  # fmt: skip
C4 = [_normal(4) for _ in range(3)]
VARIANCE = np.abs(_normal(4)) + 0.1
GAMMA, BETA = _normal(7, 8), _normal(7, 8)
MASK = RANDOM.random((2, 1, 5, 6)) > 0.4
MASK[..., 0] = True
Q, K, V = _normal(2, 3, 5, 4), _normal(2, 3, 6, 4), _normal(2, 3, 6, 7)
WEIGHT = _normal(5, 8)
NORMALS = [
    Case("batch_norm", {"x": IMAGE}, {"mean": C4[0], "variance": VARIANCE, "gamma": C4[1], "beta": C4[2]},
         lambda x: F.batch_norm(_t(x), _t(C4[0]), _t(VARIANCE), _t(C4[1]), _t(C4[2]))),
    Case("instance_norm", {"x": IMAGE}, {"gamma": C4[1], "beta": C4[2], "epsilon": 1e-3},
         lambda x: F.instance_norm(_t(x), weight=_t(C4[1]), bias=_t(C4[2]), eps=1e-3)),
    Case("layer_norm", {"x": IMAGE}, {"axes": [2, 3], "gamma": GAMMA, "beta": BETA},
         lambda x: F.layer_norm(_t(x), (7, 8), _t(GAMMA), _t(BETA))),
    Case("layer_norm", {"x": IMAGE}, {"axes": [1]}, lambda x: F.layer_norm(_t(x).movedim(1, -1), (4,)).movedim(-1, 1),
         note="channels"),
    Case("l2_norm", {"x": IMAGE}, expected=lambda x: x / np.sqrt((x * x).sum((1, 2, 3), keepdims=True) + 1e-6)),
    Case("local_response_norm", {"x": IMAGE}, {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0},
         lambda x: F.local_response_norm(_t(x), 3, 0.1, 0.5, 2.0)),
    Case("linear", {"x": IMAGE}, {"weight": WEIGHT, "bias": B6[:5]}, lambda x: F.linear(_t(x), _t(WEIGHT), _t(B6[:5]))),
    Case("matmul", {"x": Q, "y": K}, {"transpose_y": True}, lambda x, y: x @ y.swapaxes(-1, -2)),
    Case("matmul", {"x": K[0, 0, 0], "y": K[0, 0].T.copy()}, expected=lambda x, y: x @ y, note="vector"),
    Case("einsum", {"values": (Q, _normal(2, 4, 5, 3))}, {"equation": "nchw,nwhu->nchu"},
         lambda values: np.einsum("nchw,nwhu->nchu", *values)),
    Case("scaled_dot_product_attention", {"query": Q, "key": K, "value": V},
         expected=lambda query, key, value: F.scaled_dot_product_attention(_t(query), _t(key), _t(value)), ios=18),
    Case("scaled_dot_product_attention", {"query": Q, "key": K, "value": V, "attn_mask": MASK}, ios=18, note="mask",
         expected=lambda query, key, value, attn_mask:
         F.scaled_dot_product_attention(_t(query), _t(key), _t(value), _t(attn_mask))),
]  # fmt: skip


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_gives_torchs_values(case: Case) -> None:
    check(case, CONVOLUTIONS)


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_pool_gives_torchs_values(case: Case) -> None:
    check(case, POOLS)


@pytest.mark.parametrize("case", NORMALS, ids=str)
def test_normalisation_or_product_gives_torchs_values(case: Case) -> None:
    check(case, NORMALS)


SEQUENCE, H0, C0 = _normal(5, 2, 3), _normal(2, 8), _normal(2, 8)


def _gates(weights: Tensor, order: tuple[int, ...]) -> np.ndarray:
    """Reorder torch's gates into Core ML's."""
    parts = weights.detach().chunk(len(order))
    return torch.cat([parts[i] for i in order]).numpy()


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("whole", [True, False])
def test_lstm_gives_torchs_values(direction: str, whole: bool) -> None:
    torch.manual_seed(0)
    both = direction == "bidirectional"
    layer = nn.LSTM(3, 4, bidirectional=both)
    order = (0, 1, 3, 2)
    sides = ("", "_reverse") if both else ("",)
    weights = {}
    for side in sides:
        end = "_back" if side else ""
        weights[f"weight_ih{end}"] = _gates(getattr(layer, f"weight_ih_l0{side}"), order)
        weights[f"weight_hh{end}"] = _gates(getattr(layer, f"weight_hh_l0{side}"), order)
        weights[f"bias{end}"] = _gates(getattr(layer, f"bias_ih_l0{side}") + getattr(layer, f"bias_hh_l0{side}"), order)
    size = 8 if both else 4

    def build(x, h, c):
        return mb.lstm(x=x, initial_h=h, initial_c=c, direction=direction, output_sequence=whole, **weights)

    found = run(build, {"x": SEQUENCE, "h": H0[:, :size], "c": C0[:, :size]})
    x = _t(SEQUENCE).flip(0) if direction == "reverse" else _t(SEQUENCE)
    states = [_t(s[:, :size]).reshape(2, -1, 4).transpose(0, 1).contiguous() for s in (H0, C0)]
    with torch.no_grad():
        outputs, (hidden, memory) = layer(x, tuple(states))
    last = [state.transpose(0, 1).reshape(2, -1) for state in (hidden, memory)]
    wanted = outputs if whole else last[0][None]
    for one, other in zip(found, (wanted, *last), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)


def test_rnn_and_gru_with_reset_after_give_torchs_values() -> None:
    torch.manual_seed(0)
    rnn, gru = nn.RNN(3, 4, nonlinearity="relu"), nn.GRU(3, 4)
    order = (0, 2, 1)  # torch: reset, update, new; Core ML: reset, output, update
    parts = [_gates(getattr(gru, f"{name}_l0"), order) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    simple = [getattr(rnn, f"{name}_l0").detach().numpy() for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def build(x, h):
        first = mb.rnn(
            x=x, initial_h=h, weight_ih=simple[0], weight_hh=simple[1], bias=simple[2] + simple[3],
            activation="relu", output_sequence=True,
        )  # fmt: skip
        second = mb.gru(
            x=x, initial_h=h, weight_ih=parts[0], weight_hh=parts[1], input_bias=parts[2], bias=parts[3],
            reset_after=True, output_sequence=True,
        )  # fmt: skip
        return (*first, *second)

    found = run(build, {"x": SEQUENCE, "h": H0[:, :4]}, ios=18)
    with torch.no_grad():
        wanted = [item for layer in (rnn, gru) for item in layer(_t(SEQUENCE), _t(H0[None, :, :4].copy()))]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy().reshape(one.shape), atol=1e-5)


def test_gru_applies_the_reset_gate_before_the_product_by_default() -> None:
    weights = {"weight_ih": _normal(12, 3), "weight_hh": _normal(12, 4), "bias": _normal(12)}
    found = run(lambda x, h: mb.gru(x=x, initial_h=h, **weights)[1], {"x": SEQUENCE, "h": H0[:, :4]})
    hidden = H0[:, :4].astype(np.float64)
    (w_r, w_o, w_z), (r_r, r_o, r_z), (b_r, b_o, b_z) = (np.split(array, 3) for array in weights.values())
    for x in SEQUENCE:
        reset = 1 / (1 + np.exp(-(x @ w_r.T + hidden @ r_r.T + b_r)))
        update = 1 / (1 + np.exp(-(x @ w_z.T + hidden @ r_z.T + b_z)))
        hidden = (1 - update) * np.tanh(x @ w_o.T + (reset * hidden) @ r_o.T + b_o) + update * hidden
    np.testing.assert_allclose(found[0], hidden, atol=1e-5)
