"""Rewrites compute what they replace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.frameworks.pytorch.capture import capture
from edgekit.program.graph import calls
from edgekit.program.rewrites import expand, fold_batch_norms, keep_averaged_axes, replace_average_pools, rewrite

ATEN = torch.ops.aten


def lively(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


NORMED = {
    "convolution": (nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)), (2, 3, 8, 8)),
    "biased convolution": (nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6, affine=False)), (2, 3, 8)),
    "grouped transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 5, 5),
    ),
    "linear": (nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), (3, 5)),
}


@pytest.mark.parametrize("name", NORMED)
def test_batch_norm_is_folded_when_a_layer_is_before_it(name: str) -> None:
    module, shape = NORMED[name]
    sample = torch.randn(shape)
    graph = fold_batch_norms(capture(lively(module), (sample,)))
    assert not calls(graph, ATEN.batch_norm.default)
    torch.testing.assert_close(graph(sample), module(sample), rtol=1e-4, atol=1e-5)
    assert "0.weight" in dict(graph.named_parameters())  # masks and weights find it under its own name


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 6), (2, 4, 5, 5)])
def test_batch_norm_becomes_a_layer_when_none_is_before_it(shape: tuple[int, ...]) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    module, sample = lively(nn.Sequential(nn.ReLU(), kind(4))), torch.randn(shape)
    graph = rewrite(capture(module, (sample,)))
    assert not calls(graph, ATEN.batch_norm.default)
    torch.testing.assert_close(graph(sample), module(sample), rtol=1e-4, atol=1e-5)


class Colliding(nn.Module):
    """``a.1`` and ``a_1`` become one name when dots turn to underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Identity(), nn.Conv2d(4, 4, 1))
        self.b = nn.BatchNorm2d(4)
        self.a_1 = nn.Conv2d(4, 4, 1)
        self.c = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a_1(torch.relu(self.b(self.a(x)))))


def test_fold_keeps_weights_apart_when_names_would_collide() -> None:
    module, sample = lively(Colliding()), torch.randn(2, 4, 4, 4)
    graph = rewrite(capture(module, (sample,)))
    torch.testing.assert_close(graph(sample), module(sample), rtol=1e-4, atol=1e-5)


def test_fold_leaves_a_shared_convolution_whole_when_others_read_its_weights() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) + self.conv(x)

    module, sample = lively(Shared()), torch.randn(2, 3, 4, 4)
    graph = rewrite(capture(module, (sample,)))
    torch.testing.assert_close(graph(sample), module(sample), rtol=1e-4, atol=1e-5)


class Attention(nn.Module):
    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return functional.scaled_dot_product_attention(x, x * 2, x + 1, attn_mask=mask, is_causal=self.causal)


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "additive"])
def test_attention_is_the_same_when_written_out(kind: str) -> None:
    x = torch.randn(2, 2, 5, 4)
    keep = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    keep[..., 3:] = False
    masks = {"bool": keep, "additive": torch.zeros(2, 1, 5, 5).masked_fill(~keep, float("-inf"))}
    inputs = (x, masks[kind]) if kind in masks else (x,)
    module = Attention(causal=kind == "causal").eval()
    graph = expand(capture(module, inputs))
    assert not calls(graph, ATEN.scaled_dot_product_attention.default)
    torch.testing.assert_close(graph(*inputs), module(*inputs), rtol=1e-5, atol=1e-6)


def test_padding_mask_is_arithmetic_when_a_transformer_encoder_was_recorded() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: Tensor, keep: Tensor) -> Tensor:
            return self.encoder(x, src_key_padding_mask=keep == 0)

    keep = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    inputs = (torch.randn(2, 4, 8), keep)
    module = Padded().eval()
    graph = expand(rewrite(capture(module, inputs)))
    assert not calls(graph, ATEN.masked_fill_.Scalar, ATEN.masked_fill.Scalar, ATEN.zeros_like.default)
    torch.testing.assert_close(graph(*inputs)[keep == 1], module(*inputs)[keep == 1], rtol=1e-4, atol=1e-5)


def test_hard_sigmoid_is_the_same_when_written_out() -> None:
    sample = torch.linspace(-5, 5, 41)[None]
    graph = expand(capture(nn.Hardsigmoid(), (sample,)))
    assert not calls(graph, ATEN.hardsigmoid.default)
    torch.testing.assert_close(graph(sample), functional.hardsigmoid(sample))


@pytest.mark.parametrize(
    ("pool", "replaced"),
    [
        (nn.AvgPool2d(2), True),
        (nn.AvgPool2d((3, 2), stride=1, padding=1), True),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), False),
    ],
)
def test_average_pool_is_a_convolution_when_it_divides_by_its_window(pool: nn.Module, replaced: bool) -> None:
    sample = torch.randn(2, 3, 8, 8)
    graph = replace_average_pools(capture(pool, (sample,)))
    assert bool(calls(graph, ATEN.conv2d.default)) is replaced
    torch.testing.assert_close(graph(sample), pool(sample))


class Mean(nn.Module):
    def __init__(self, axes: tuple[int, ...], *, keepdim: bool = False) -> None:
        super().__init__()
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=self.keepdim)


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (3, 2)])
@pytest.mark.parametrize("dynamic_batch", [True, False])
def test_mean_over_positions_keeps_its_axes_until_they_are_dropped(axes: tuple[int, ...], dynamic_batch: bool) -> None:
    sample = torch.randn(3, 4, 5, 6)
    graph = keep_averaged_axes(capture(Mean(axes), (sample,), dynamic_batch=dynamic_batch))
    (mean,) = calls(graph, ATEN.mean.dim)
    assert mean.args[1:] == ([2, 3], True)
    torch.testing.assert_close(graph(sample), sample.mean(axes))
    if dynamic_batch:
        torch.testing.assert_close(graph(sample[:2]), sample[:2].mean(axes))


@pytest.mark.parametrize(("axes", "shape"), [((1,), (2, 3, 4, 5)), ((2,), (2, 3, 4)), ((1, 2), (2, 3, 4, 5))])
def test_mean_is_left_alone_when_it_is_not_over_positions(axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    sample = torch.randn(shape)
    graph = keep_averaged_axes(capture(Mean(axes), (sample,)))
    assert not calls(graph, ATEN.view.default)
    torch.testing.assert_close(graph(sample), sample.mean(axes))
