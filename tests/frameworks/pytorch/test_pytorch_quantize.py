"""Quantization of small networks, run for real: accuracy, scales, layers left alone, and what stays exact."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import DataError, RecipeError, UnsupportedError
from edgekit.recipe.schema import QuantizeRule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch's own imports use deprecated parts of Python and torch
    from edgekit.frameworks.pytorch.capture import export_program
    from edgekit.frameworks.pytorch.quantize import calibrate, convert, freeze_observers, prepare, skipped
    from edgekit.program.analysis import sqnr_db

from edgekit.program.graph import calls, tensor_of
from edgekit.program.quantization import is_dequantize, is_quantize

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:The tensor attributes? .*assigned during export:UserWarning",
)
ATEN = torch.ops.aten


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.stem[1].running_var.fill_(0.01)  # activations far beyond 6

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Attending(nn.Module):
    """int64 tokens with arithmetic on positions, a padding mask, attention, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(20, 16)
        self.positions = nn.Embedding(12, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(ids.shape[1]) + 2  # integers plus a number: must stay integers
        hidden = self.table(ids) + self.positions(places)
        mixed, _ = self.attention(hidden, hidden, hidden, key_padding_mask=ids == 0, need_weights=False)
        pooled = self.norm(hidden + mixed).mean(1)
        return self.head(pooled), pooled


def images(count: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def tokens(count: int = 16) -> Tensor:
    ids = torch.randint(1, 20, (count, 6), generator=torch.Generator().manual_seed(1))
    ids[:, 5] = 0
    return ids


def quantized(module: nn.Module, sample: Tensor, rule: QuantizeRule, *, qat: bool = False):
    prepared = prepare(module, (sample[:2],), rule, qat=qat)
    calibrate(prepared, [(sample,)])
    return convert(prepared)


@cache
def int8_convolutional():
    """The network quantized after training, for tests that only look at it."""
    return quantized(Convolutional().eval(), images(), QuantizeRule())


@pytest.mark.parametrize(
    ("precision", "floor_db"), [("int8", 28.0), ("int8-dynamic", 35.0), ("w8", 35.0), ("w4", 15.0)]
)
def test_convolutional_net_keeps_its_outputs_when_quantized(precision: str, floor_db: float) -> None:
    module, sample = Convolutional().eval(), images()
    converted = quantized(module, sample, QuantizeRule(precision=precision))
    with torch.no_grad():
        assert sqnr_db(module(sample), converted(sample)) > floor_db


@pytest.mark.parametrize(("precision", "floor_db"), [("int8", 20.0), ("int8-dynamic", 30.0), ("w8", 35.0)])
def test_attention_over_tokens_keeps_its_outputs_when_quantized(precision: str, floor_db: float) -> None:
    module, ids = Attending().eval(), tokens()
    converted = quantized(module, ids, QuantizeRule(precision=precision))
    with torch.no_grad():
        for expected, received in zip(module(ids), converted(ids), strict=True):
            assert sqnr_db(expected, received) > floor_db


def test_recurrent_layer_is_left_alone_with_its_reason_when_int8_is_asked_for() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.gru(x)[0][:, -1])

    torch.manual_seed(0)
    module, sample = Recurrent().eval(), torch.randn(8, 5, 4)
    converted = quantized(module, sample, QuantizeRule())
    (left,) = skipped(converted)
    assert (left.name, left.type) == ("gru", "GRU")
    assert "recurrent" in left.reason
    with torch.no_grad():
        assert sqnr_db(module(sample), converted(sample)) > 25


@pytest.mark.parametrize("rule", ["head", "type:Linear"])
def test_layer_stays_float_when_a_rule_skips_it(rule: str) -> None:
    converted = quantized(Convolutional().eval(), images(), QuantizeRule(skip=(rule,)))
    (left,) = skipped(converted)
    assert (left.name, left.reason) == ("head", f"left alone by the rule '{rule}'")
    (linear,) = calls(converted, ATEN.linear.default)
    assert not is_dequantize(linear.args[1])
    assert len([node for node in calls(converted, ATEN.conv2d.default) if is_dequantize(node.args[1])]) == 2


def test_dense_convolution_before_relu_is_quantized_when_scales_are_dynamic() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU()).eval()
    converted = quantized(module, images(), QuantizeRule(precision="int8-dynamic"))
    dense, depthwise = calls(converted, ATEN.conv2d.default)
    assert is_dequantize(dense.args[1])
    assert not is_dequantize(depthwise.args[1])
    assert [left.name for left in skipped(converted)] == ["2"]


def test_rule_is_refused_when_it_matches_no_layer() -> None:
    with pytest.raises(RecipeError, match=r"compress.quantize.skip: the rule 'haed' matches no layer.*'head'"):
        prepare(Convolutional().eval(), (images(2),), QuantizeRule(skip=("haed",)))


def test_int16x8_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(UnsupportedError, match="export tflite at int16x8"):
        prepare(Convolutional().eval(), (images(2),), QuantizeRule(precision="int16x8"))


def test_convert_is_refused_when_nothing_was_observed() -> None:
    with pytest.raises(DataError, match="saw no finite range"):
        convert(prepare(Convolutional().eval(), (images(2),), QuantizeRule()))


@pytest.mark.parametrize("qat", [False, True])
def test_weight_scale_is_the_largest_weight_over_127(qat: bool) -> None:
    module = Convolutional().eval()
    prepared = prepare(module, (images(2),), QuantizeRule(), qat=qat)
    calibrate(prepared, [(images(),)])
    with torch.no_grad():  # an optimizer step after the last forward pass
        prepared.get_parameter("head.weight").mul_(3.0)
    converted = convert(prepared)
    (linear,) = calls(converted, ATEN.linear.default)
    scale = tensor_of(converted, linear.args[1].args[1])
    torch.testing.assert_close(scale, module.head.weight.detach().abs().amax(1) * 3 / 127)


def test_relu6_is_observed_behind_the_clamp_when_it_follows_a_convolution() -> None:
    converted = int8_convolutional()
    (clamp,) = calls(converted, ATEN.hardtanh.default)
    (after,) = clamp.users
    assert is_quantize(after)
    assert after.args[1] <= 6.0 / 255 * 1.001  # the convolution itself reaches far beyond 6
    assert clamp.args[0].target is ATEN.conv2d.default


def test_biases_lie_on_the_integer_grid_when_converted() -> None:
    converted = int8_convolutional()
    for layer in (*calls(converted, ATEN.conv2d.default), *calls(converted, ATEN.linear.default)):
        bias = tensor_of(converted, layer.args[2]).double()
        step = tensor_of(converted, layer.args[1].args[1]).double() * layer.args[0].args[1]
        assert float((bias / step - torch.round(bias / step)).abs().max()) < 1e-3


@pytest.mark.parametrize("qat", [False, True])
def test_pruned_weights_stay_zero_when_quantized(qat: bool) -> None:
    module = Convolutional().eval()
    with torch.no_grad():
        module.stem[0].weight[::2] = 0.0
        module.head.weight[:, 1::2] = 0.0
    converted = quantized(module, images(), QuantizeRule(), qat=qat)
    integers = {
        str(node.args[1].args[0].target): tensor_of(converted, node.args[1].args[0])
        for node in (*calls(converted, ATEN.conv2d.default), *calls(converted, ATEN.linear.default))
    }
    stem, _, head = integers.values()
    assert not stem[::2].any()
    assert not head[:, 1::2].any()
    assert stem[1::2].any()


def test_training_with_fake_quantization_lowers_the_loss_and_converts() -> None:
    module = Convolutional().eval()
    sample, wanted = images(), torch.ones(16, 4)
    prepared = prepare(module, (sample[:2],), QuantizeRule(precision="w4"), qat=True).train()
    optimizer = torch.optim.Adam(prepared.parameters(), 0.02)
    losses = []
    for step in range(12):
        if step == 8:
            freeze_observers(prepared)
        loss = nn.functional.mse_loss(prepared(sample), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    prepared.eval()
    with torch.no_grad():
        trained = prepared(sample)
        torch.testing.assert_close(convert(prepared)(sample), trained, rtol=1e-3, atol=1e-3)
    assert losses[-1] < 0.8 * losses[0]


def test_source_module_is_as_it_was_when_its_graph_was_trained() -> None:
    module = Convolutional().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    prepared = prepare(module, (images(2),), QuantizeRule(), qat=True)
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_frozen_observers_keep_their_scales_when_other_data_pass() -> None:
    prepared = prepare(Convolutional().eval(), (images(2),), QuantizeRule(), qat=True)
    calibrate(prepared, [(images(),)])
    freeze_observers(prepared)
    calibrate(prepared, [(images() * 100,)])
    first = next(node for node in convert(prepared).graph.nodes if is_quantize(node))
    assert first.args[1] == pytest.approx(float(images().max() - images().min()) / 255, rel=1e-3)


@pytest.mark.parametrize("dynamic", [False, True])
def test_program_computes_what_the_converted_graph_computes(dynamic: bool) -> None:
    sample, converted = images(), int8_convolutional()
    program = export_program(converted, (sample[:1],), dynamic_batch=dynamic)
    size = 5 if dynamic else 1
    with torch.no_grad():
        (received,) = program.module()(sample[:size])
        torch.testing.assert_close(received, converted(sample)[:size], rtol=0, atol=1e-6)
    assert not [
        name for name in program.state_dict if name in ("head.weight", "stem.0.weight")
    ]  # folded: no float copy


def test_operations_have_the_scales_that_integer_kernels_insist_on() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.pool = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.AvgPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.pool(self.conv(x))
            return (y * torch.sigmoid(self.gate(y))).mean((2, 3))

    torch.manual_seed(0)
    converted = quantized(Gated().eval(), images(), QuantizeRule())
    (sigmoid,) = calls(converted, ATEN.sigmoid.default)
    (after,) = sigmoid.users
    assert after.args[1:3] == (1 / 256, -128)
    assert not calls(converted, ATEN.avg_pool2d.default)
    (mean,) = calls(converted, ATEN.mean.dim)
    (quantize,) = mean.users
    assert quantize.args[1] != mean.args[0].args[1]
