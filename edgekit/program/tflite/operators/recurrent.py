"""Recurrent layers, unrolled over time: a program has no loops, and every run of it is the first.

The kernels of fully integer LSTMs hold gates and cell in 16 bits; here these are real numbers, between the same 8-bit
inputs, weights and hidden states. The difference is a few steps of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.program.tflite.call import Call, Translate
from edgekit.program.tflite.emitter import Operand, Value
from edgekit.program.tflite.graph import activation_of
from edgekit.records import Quantization

_ATEN = torch.ops.aten
MAX_STEPS = 256
"""Longer sequences and loops are refused: each step becomes operations of its own."""


@dataclass(frozen=True, slots=True)
class _Slots:
    """Where an LSTM's operands lie: the first of each group of three (without input gate) or four."""

    inputs: int = 1
    recurrent: int = 5
    peephole: int = 9
    biases: int = 12
    projection: int = 16
    hidden: int = 18
    cell: int = 19
    norms: int | None = 20


@dataclass(frozen=True, slots=True)
class _Lstm:
    """Weights of one direction: gates for input (left out where it is one minus forget), forget, cell, output."""

    inputs: Operand
    recurrent: Operand
    bias: Operand | None
    peepholes: tuple[Operand | None, ...]
    projection: tuple[Operand, Operand | None] | None
    units: int
    coupled: bool
    grid: Quantization | None
    first: tuple[Operand | None, Operand | None]


def unidirectional_lstm(call: Call) -> Value:
    """``UNIDIRECTIONAL_SEQUENCE_LSTM`` (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""
    time = _time_axis(call)
    layer = _read_lstm(call, _Slots(), time)
    if layer.grid != call.outputs[0].quantization:
        call.emit.notes.append(
            f"{call.label}: the file gives this LSTM's output another scale than its state; LiteRT hands the state's "
            "integers on as they are and so returns other numbers than the model, the program returns the model's"
        )
    return call.value(_run_lstm(call, layer, time, reverse=False))


def bidirectional_lstm(call: Call) -> list[Value]:
    """``BIDIRECTIONAL_SEQUENCE_LSTM``: two of them, one from the end; their outputs side by side, or apart."""
    if any(call.optional(index) is not None for index in range(39, 48)):
        raise call.refusal("it has auxiliary inputs", "one LSTM for each direction")
    time = _time_axis(call)
    forward = _read_lstm(call, _Slots(hidden=35, cell=36, norms=None), time)
    backward = _read_lstm(call, _Slots(18, 22, 26, 29, 33, 37, 38, None), time)
    sides = [_run_lstm(call, forward, time, reverse=False), _run_lstm(call, backward, time, reverse=True)]
    if call.options.mergeOutputs:
        return [call.value(call.call(_ATEN.cat.default, sides, -1))]
    return [call.value(side, output=output) for output, side in enumerate(sides)]


def _time_axis(call: Call) -> int:
    """Return which axis of the input is time, after everything that makes an LSTM another one was checked."""
    if activation_of(call.options) != "TANH":
        raise call.refusal(f"its activation is {activation_of(call.options)}", "an LSTM with tanh")
    return _steps_axis(call)


def _steps_axis(call: Call) -> int:
    time = 0 if call.options.timeMajor else 1
    steps = call.input(0).shape[time]
    if steps > MAX_STEPS:
        raise call.refusal(
            f"it runs over {steps} steps, each of which would become operations of its own",
            f"sequences of at most {MAX_STEPS} steps, or the TFLite format alone",
        )
    return time


def _read_lstm(call: Call, slots: _Slots, time: int) -> _Lstm:
    if slots.norms is not None and any(call.optional(slots.norms + gate) is not None for gate in range(4)):
        raise call.refusal("it normalizes its gates", "an LSTM without layer normalization inside")
    if getattr(call.options, "diagonalRecurrentTensors", False):
        raise call.refusal("its recurrent weights are diagonal", "an LSTM with full recurrent weights")
    coupled = call.optional(slots.inputs) is None
    gates = range(1 if coupled else 0, 4)
    biases = [call.optional(slots.biases + gate) for gate in gates]
    projection = call.optional(slots.projection)
    shift = call.optional(slots.projection + 1)
    return _Lstm(
        inputs=matrix(call, [call.input(slots.inputs + gate) for gate in gates]),
        recurrent=matrix(call, [call.input(slots.recurrent + gate) for gate in gates]),
        bias=call.emit.held(torch.cat([real(call, bias) for bias in biases if bias]), f"{call.label}.bias"),
        peepholes=tuple(_peephole(call, slots.peephole + gate) for gate in range(3)),
        projection=None
        if projection is None
        else (matrix(call, [projection]), None if shift is None else call.emit.held(real(call, shift))),
        units=call.input(slots.inputs + 1).shape[0],
        coupled=coupled,
        grid=call.input(slots.hidden).quantization,
        first=(_state(call, slots.hidden, time), _state(call, slots.cell, time)),
    )


def matrix(call: Call, values: Sequence[Value]) -> Operand:
    """Put the weights of several gates on top of each other: ``[gates * units, inputs]``.

    Integer weights become the real numbers that they stand for: what multiplies with them returns real numbers, and
    delegates take integer weights there only with activations that are quantized once more, at run time.
    """
    return call.emit.held(torch.cat([real(call, value) for value in values]), f"{call.label}.weight")


def real(call: Call, value: Value) -> Tensor:
    """Return a constant as the real numbers that it stands for."""
    if value.constant is None:
        raise call.refusal("its weights depend on the model's input", "a layer with constant weights")
    return value.real()


def _peephole(call: Call, index: int) -> Operand | None:
    value = call.optional(index)
    return None if value is None else call.emit.held(real(call, value), f"{call.label}.peephole")


def _state(call: Call, index: int, time: int) -> Operand | None:
    """Return the state before the first step with an axis of one step, None where it is zero."""
    value = call.optional(index)
    if value is None or (value.constant is not None and not real(call, value).any()):
        return None
    sizes = [value.shape[0], 1, *value.shape[1:]] if time == 1 else [1, *value.shape]
    wide: Operand = call.call(_ATEN.reshape.default, call.emit.operand(value), sizes)
    return wide


def step_of(call: Call, sequence: Operand, time: int, step: int) -> Operand:
    """Return one step of a sequence; time stays an axis of size 1, which delegates slice."""
    result: Operand = call.call(_ATEN.slice.Tensor, sequence, time, step, step + 1)
    return result


def _run_lstm(call: Call, layer: _Lstm, time: int, *, reverse: bool) -> Operand:
    source = call.input(0)
    gates = call.call(_ATEN.linear.default, call.emit.operand(source), layer.inputs, layer.bias)
    hidden, cell = layer.first
    outputs: list[Operand] = []
    steps = range(source.shape[time])
    for step in reversed(steps) if reverse else steps:
        total = step_of(call, gates, time, step)
        if hidden is not None:
            total = call.call(_ATEN.add.Tensor, total, call.call(_ATEN.linear.default, hidden, layer.recurrent))
        hidden, cell = _lstm_step(call, layer, total, cell)
        outputs.append(hidden)
    ordered = outputs[::-1] if reverse else outputs
    result: Operand = call.call(_ATEN.cat.default, ordered, time) if len(ordered) > 1 else ordered[0]
    return result


def _lstm_step(call: Call, layer: _Lstm, total: Operand, cell: Operand | None) -> tuple[Operand, Operand]:
    parts = [
        call.call(_ATEN.slice.Tensor, total, -1, part * layer.units, (part + 1) * layer.units)
        for part in range(3 if layer.coupled else 4)
    ]
    forget, new, leave = parts[-3:]
    peeps = layer.peepholes
    forget = call.call(_ATEN.sigmoid.default, _peeped(call, forget, cell, peeps[1]))
    if layer.coupled:
        enter = call.call(_ATEN.sub.Tensor, call.emit.held(torch.ones(1), "one"), forget)
    else:
        enter = call.call(_ATEN.sigmoid.default, _peeped(call, parts[0], cell, peeps[0]))
    added = call.call(_ATEN.mul.Tensor, enter, call.call(_ATEN.tanh.default, new))
    fresh: Operand = (
        added if cell is None else call.call(_ATEN.add.Tensor, call.call(_ATEN.mul.Tensor, forget, cell), added)
    )
    fresh = _clipped(call, fresh, call.options.cellClip)
    leave = call.call(_ATEN.sigmoid.default, _peeped(call, leave, fresh, peeps[2]))
    hidden: Operand = call.call(_ATEN.mul.Tensor, leave, call.call(_ATEN.tanh.default, fresh))
    if layer.projection is not None:
        weight, bias = layer.projection
        hidden = _clipped(call, call.call(_ATEN.linear.default, hidden, weight, bias), call.options.projClip)
    return call.requantized(hidden, layer.grid), fresh


def _peeped(call: Call, gate: Operand, cell: Operand | None, weight: Operand | None) -> Operand:
    if cell is None or weight is None:
        return gate
    result: Operand = call.call(_ATEN.add.Tensor, gate, call.call(_ATEN.mul.Tensor, cell, weight))
    return result


def _clipped(call: Call, operand: Operand, limit: float) -> Operand:
    if limit <= 0:
        return operand
    result: Operand = call.call(_ATEN.hardtanh.default, operand, -limit, limit)
    return result


def unidirectional_rnn(call: Call) -> Value:
    """``UNIDIRECTIONAL_SEQUENCE_RNN``: ``h = f(W x + R h + b)``."""
    source, time = call.input(0), _steps_axis(call)
    bias = call.emit.held(real(call, call.input(3)), f"{call.label}.bias")
    terms = call.call(_ATEN.linear.default, call.emit.operand(source), matrix(call, [call.input(1)]), bias)
    recurrent = matrix(call, [call.input(2)])
    hidden = _state(call, 4, time)
    outputs: list[Operand] = []
    for step in range(source.shape[time]):
        total = step_of(call, terms, time, step)
        if hidden is not None:
            total = call.call(_ATEN.add.Tensor, total, call.call(_ATEN.linear.default, hidden, recurrent))
        hidden = call.activated(total)
        outputs.append(hidden)
    return call.value(call.call(_ATEN.cat.default, outputs, time) if len(outputs) > 1 else outputs[0])


OPERATORS: dict[str, Translate] = {
    "BIDIRECTIONAL_SEQUENCE_LSTM": bidirectional_lstm,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": unidirectional_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": unidirectional_rnn,
}
