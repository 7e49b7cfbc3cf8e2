"""Activations (``iOS15/activation.py``, ``iOS17/activation.py``); recurrent layers use them by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, operation


def _channels(x: Tensor, values: Tensor) -> Tensor:
    """Spread one value a channel (axis 1) over a tensor."""
    return values.float().reshape([1, -1, *([1] * (x.ndim - 2))])


@operation("clamped_relu")
def clamped_relu(call: Call) -> Tensor:
    """``iOS15.clamped_relu``: ``min(beta, x)`` where ``x >= 0``, else ``min(beta, alpha x)``."""
    x = call.tensor()
    return functional.leaky_relu(x, call.number("alpha")).clamp(max=call.number("beta"))


@operation("elu")
def elu(call: Call) -> Tensor:
    """``iOS15.elu``: ``x`` above zero, else ``alpha (exp(x) - 1)``."""
    return functional.elu(call.tensor(), call.number("alpha"))


@operation("gelu")
def gelu(call: Call) -> Tensor:
    """``iOS15.gelu``: ``EXACT`` (erf), ``TANH_APPROXIMATION`` or ``SIGMOID_APPROXIMATION`` (``x sigmoid(1.702 x)``)."""
    x, mode = call.tensor(), call.word("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise call.refuse("mode EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION", mode)
    return functional.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


@operation("leaky_relu")
def leaky_relu(call: Call) -> Tensor:
    """``iOS15.leaky_relu``: ``x`` where ``x >= 0``, else ``alpha x``."""
    return functional.leaky_relu(call.tensor(), call.number("alpha"))


@operation("linear_activation")
def linear_activation(call: Call) -> Tensor:
    """``iOS15.linear_activation``: ``alpha x + beta``."""
    return call.number("alpha") * call.tensor() + call.number("beta")


@operation("prelu")
def prelu(call: Call) -> Tensor:
    """``iOS15.prelu``: ``x`` above zero, else ``alpha x`` with one alpha a channel (axis 1)."""
    x = call.tensor()
    return torch.where(x > 0, x, x * _channels(x, call.tensor("alpha")))


@operation("relu", exact=True)
def relu(call: Call) -> Tensor:
    """``iOS15.relu``: ``max(0, x)``."""
    return functional.relu(call.tensor())


@operation("relu6", exact=True)
def relu6(call: Call) -> Tensor:
    """``iOS15.relu6``: ``min(6, max(0, x))``."""
    return call.tensor().clamp(0, 6)


@operation("scaled_tanh")
def scaled_tanh(call: Call) -> Tensor:
    """``iOS15.scaled_tanh``: ``alpha tanh(beta x)``."""
    return call.number("alpha") * torch.tanh(call.number("beta") * call.tensor())


@operation("sigmoid")
def sigmoid(call: Call) -> Tensor:
    """``iOS15.sigmoid``."""
    return torch.sigmoid(call.tensor())


@operation("sigmoid_hard")
def sigmoid_hard(call: Call) -> Tensor:
    """``iOS15.sigmoid_hard``: ``min(max(alpha x + beta, 0), 1)``."""
    return (call.number("alpha") * call.tensor() + call.number("beta")).clamp(0, 1)


@operation("silu")
def silu(call: Call) -> Tensor:
    """``iOS15.silu``: ``x sigmoid(x)``."""
    return functional.silu(call.tensor())


@operation("softplus")
def softplus(call: Call) -> Tensor:
    """``iOS15.softplus``: ``log(1 + exp(x))``, without overflow."""
    return _softplus(call.tensor())


@operation("softplus_parametric")
def softplus_parametric(call: Call) -> Tensor:
    """``iOS15.softplus_parametric``: ``alpha log(1 + exp(beta x))``, one of each a channel (axis 1)."""
    x = call.tensor()
    return _channels(x, call.tensor("alpha")) * _softplus(_channels(x, call.tensor("beta")) * x)


@operation("softsign")
def softsign(call: Call) -> Tensor:
    """``iOS15.softsign``: ``x / (1 + |x|)``."""
    return functional.softsign(call.tensor())


@operation("softmax")
def softmax(call: Call) -> Tensor:
    """``iOS15.softmax``: along ``axis``, the last one by default; the greatest value is taken away first."""
    return torch.softmax(call.tensor(), call.integer("axis", -1))


@operation("tanh")
def tanh(call: Call) -> Tensor:
    """``iOS15.tanh``."""
    return torch.tanh(call.tensor())


@operation("thresholded_relu", exact=True)
def thresholded_relu(call: Call) -> Tensor:
    """``iOS15.thresholded_relu``: ``x`` where ``x >= alpha``, else 0."""
    x = call.tensor()
    return torch.where(x >= call.number("alpha"), x, torch.zeros_like(x))


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _hard_sigmoid(x: Tensor) -> Tensor:
    """With the slope and offset that Core ML's recurrent layers take, 0.2 and 0.5."""
    return (0.2 * x + 0.5).clamp(0, 1)


BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": _hard_sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "scaled_tanh": torch.tanh,  # with its standard factors, 1 and 1
    "linear": lambda x: x,
}
"""Activations that recurrent layers name."""
