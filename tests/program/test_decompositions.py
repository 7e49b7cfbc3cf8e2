"""The decompositions compute what torch computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.program.decompositions import attention, decompose, operations_of, unrolled_steps

ATEN = torch.ops.aten
pytestmark = [  # of torch.export itself
    pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]


def _masks() -> dict[str, torch.Tensor | None]:
    allowed = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(3)) > 0.4
    allowed[0, 0, 2] = False  # a row whose every key is masked
    zeros = torch.zeros(allowed.shape)
    return {
        "none": None,
        "bool": allowed,
        "minus-infinity": zeros.masked_fill(~allowed, -torch.inf),
        "finite": zeros.masked_fill(~allowed, -1e4),
    }


@pytest.mark.parametrize("kind", _masks())
def test_attention_equals_torch_when_masked(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(2, 3, size, 4, generator=generator) for size in (5, 7, 7))
    mask = _masks()[kind]
    torch.testing.assert_close(
        attention(query, key, value, mask),
        F.scaled_dot_product_attention(query, key, value, mask),
        atol=1e-5,
        rtol=1e-5,
    )


def test_attention_equals_torch_when_causal_scaled_and_grouped() -> None:
    query, key, value = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 6)
    options = {"is_causal": True, "scale": 0.3, "enable_gqa": True}
    torch.testing.assert_close(
        attention(query, key, value, **options), F.scaled_dot_product_attention(query, key, value, **options)
    )


class Recurrent(nn.Module):
    def __init__(self, kind: str, **options) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(3, 4, **options)

    def forward(self, x):
        outputs, states = self.layer(x)
        return (outputs, *states) if isinstance(states, tuple) else (outputs, states)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}]
)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_recurrent_layer_equals_torch_when_unrolled(kind: str, options: dict[str, object]) -> None:
    torch.manual_seed(2)
    model, x = Recurrent(kind, **options).eval(), torch.randn(2, 3, 3)
    program = torch.export.export(model, (x,))
    assert unrolled_steps(program) == (3 if options.get("batch_first") else 2)
    unrolled = decompose(program)
    assert not {ATEN.gru.input, ATEN.lstm.input} & operations_of(unrolled)
    for found, expected in zip(unrolled.module()(x), model(x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_decompose_returns_the_program_when_nothing_is_to_do() -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    assert decompose(program) is program


@pytest.mark.parametrize("activation", [nn.Hardsigmoid(), nn.Hardswish()])
def test_hard_activation_equals_torch_without_casts_when_decomposed(activation: nn.Module) -> None:
    x = torch.linspace(-4, 4, 33)
    decomposed = decompose(torch.export.export(activation, (x,)))
    torch.testing.assert_close(decomposed.module()(x), activation(x))
    assert ATEN._to_copy.default not in operations_of(decomposed)
