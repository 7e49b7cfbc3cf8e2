"""Recurrent layers (``iOS15/recurrent.py``, ``iOS17/recurrent.py``, ``iOS18/recurrent.py``).

Sequences are ``[steps, batch, features]``. Without ``output_sequence`` the first output is the last step alone,
``[1, batch, features]``. A ``reverse`` layer reads from the end, and gives its outputs in the order in which it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.operations.activation import BY_NAME
from edgekit.formats.coreml.evaluator.registry import Call, operation

_Activation = Callable[[Tensor], Tensor]


def _activation(call: Call, name: str, default: str) -> _Activation:
    kind = call.word(name, default)
    if kind not in BY_NAME:
        raise call.refuse(f"{name} among {', '.join(BY_NAME)}", kind)
    return BY_NAME[kind]


def _weights(call: Call, name: str) -> Tensor:
    return call.tensor(name).float()


def _bias(call: Call, name: str, size: int) -> Tensor:
    found = call.maybe(name)
    return torch.zeros(size) if found is None else found.float()


def _sequence(call: Call, x: Tensor) -> Tensor:
    kind = call.word("direction", "forward")
    if kind not in ("forward", "reverse"):
        raise call.refuse("direction forward or reverse", kind)
    return x.flip(0) if kind == "reverse" else x


def _outputs(call: Call, steps: list[Tensor]) -> Tensor:
    return torch.stack(steps) if call.flag("output_sequence") else steps[-1][None]


@operation("rnn")
def rnn(call: Call) -> tuple[Tensor, Tensor]:
    """``iOS15.rnn``: ``h' = activation(W_ih x + W_hh h + b)``."""
    recurrent = _weights(call, "weight_hh")
    activation = _activation(call, "activation", "tanh")
    x = _sequence(call, call.tensor())
    driven = x @ _weights(call, "weight_ih").T + _bias(call, "bias", len(recurrent))
    hidden, steps = call.tensor("initial_h"), []
    for step in driven:
        hidden = activation(step + hidden @ recurrent.T)
        steps.append(hidden)
    return _outputs(call, steps), hidden


@operation("gru")
def gru(call: Call) -> tuple[Tensor, Tensor]:
    """``iOS15.gru``, ``iOS18.gru``: gates in the order reset, output, update.

    ``o = activation(W_io x + b_io + W_ho (r * h))``, ``h' = (1 - z) o + z h``. The formula in the opset's text has
    ``r * (W_ho h)``; the expected values in coremltools' tests (and its neural network specification) do not. That
    second form is what ``reset_after`` (iOS18) asks for; then ``input_bias`` is the bias of the input's side.
    """
    recurrent = _weights(call, "weight_hh")
    size = recurrent.shape[1]
    gate, activation = _activation(call, "recurrent_activation", "sigmoid"), _activation(call, "activation", "tanh")
    bias = _bias(call, "bias", 3 * size)
    driven = _sequence(call, call.tensor()) @ _weights(call, "weight_ih").T + _bias(call, "input_bias", 3 * size)
    reset_w, output_w, update_w = recurrent.split(size)
    reset_b, output_b, update_b = bias.split(size)
    hidden, steps = call.tensor("initial_h"), []
    for step in driven:
        to_reset, to_output, to_update = step.split(size, -1)
        reset = gate(to_reset + hidden @ reset_w.T + reset_b)
        update = gate(to_update + hidden @ update_w.T + update_b)
        if call.flag("reset_after"):
            inner = reset * (hidden @ output_w.T + output_b)
        else:
            inner = (reset * hidden) @ output_w.T + output_b
        hidden = (1 - update) * activation(to_output + inner) + update * hidden
        steps.append(hidden)
    return _outputs(call, steps), hidden


@dataclass(frozen=True, slots=True)
class _Lstm:
    """The settings that both directions share."""

    gate: _Activation
    cell: _Activation
    output: _Activation
    clip: float | None

    def run(self, call: Call, x: Tensor, hidden: Tensor, memory: Tensor, side: str) -> tuple[list[Tensor], Tensor]:
        """Run one direction; ``side`` is empty or ``_back``. Returns the outputs of the steps and the last memory."""
        recurrent = _weights(call, f"weight_hh{side}")
        size = recurrent.shape[1]
        bias = _bias(call, f"bias{side}", 4 * size)
        look_in, look_forget, look_out = _bias(call, f"peephole{side}", 3 * size).split(size)
        driven = x @ _weights(call, f"weight_ih{side}").T + bias
        steps = []
        for step in driven:
            to_in, to_forget, to_out, to_cell = (step + hidden @ recurrent.T).split(size, -1)
            taken = self.gate(to_in + look_in * memory)
            kept = self.gate(to_forget + look_forget * memory)
            memory = self._clipped(kept * memory + taken * self.cell(to_cell))
            hidden = self.gate(to_out + look_out * memory) * self.output(memory)
            steps.append(hidden)
        return steps, memory

    def _clipped(self, values: Tensor) -> Tensor:
        return values if self.clip is None else values.clamp(-self.clip, self.clip)


@operation("lstm")
def lstm(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """``iOS15.lstm``: gates in the order input, forget, output, cell; peepholes input, forget, output.

    ``direction`` ``bidirectional`` runs ``weight_*_back`` from the end; its states are the second half of the hidden
    dimension, and its outputs stand in the order of the input. ``clip`` limits the cell.
    """
    shared = _Lstm(
        gate=_activation(call, "recurrent_activation", "sigmoid"),
        cell=_activation(call, "cell_activation", "tanh"),
        output=_activation(call, "activation", "tanh"),
        clip=call.number("clip") if call.has("clip") else None,
    )
    x, hidden, memory = (call.tensor(name) for name in ("x", "initial_h", "initial_c"))
    if call.word("direction", "forward") != "bidirectional":
        steps, memory = shared.run(call, _sequence(call, x), hidden, memory, "")
        return _outputs(call, steps), steps[-1], memory
    size = hidden.shape[-1] // 2
    ahead, ahead_memory = shared.run(call, x, hidden[:, :size], memory[:, :size], "")
    back, back_memory = shared.run(call, x.flip(0), hidden[:, size:], memory[:, size:], "_back")
    last = torch.cat([ahead[-1], back[-1]], -1)
    whole = torch.cat([torch.stack(ahead), torch.stack(back[::-1])], -1)
    outputs = whole if call.flag("output_sequence") else last[None]
    return outputs, last, torch.cat([ahead_memory, back_memory], -1)
