"""Decompositions that mobile converters lower well, in place of the default ones.

Each function computes what the aten operation of the same name computes. They are applied with
:func:`decompose`, one pass of ``torch.export``'s own decomposition, so that shapes, names and a free batch survive.

Why not the defaults (measured with ExecuTorch 1.5.1 and coremltools 9.0):

* ``scaled_dot_product_attention`` becomes a "safe" softmax (eq, logical_not, any, where), which XNNPACK lacks;
* ``hardsigmoid`` and ``hardswish`` gain a float-to-float copy that XNNPACK refuses (as does any arithmetic with an
  integer constant: constants below are floats);
* ``gru`` and ``lstm`` become squeezes and splits between the delegates, one delegate a step, weights stored in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional

from edgekit.program.edit import ProgramEdit

_ATEN = torch.ops.aten

Decomposition = Callable[..., Any]

_MASKED, _NEVER = -3e4, -6e4
"""What a masked score is raised to, and the limit below which an additive mask means "never"; float16 holds both."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot-product attention as two matrix products around a plain softmax.

    Rows whose every key is masked return zeros, as in the original: the mask also multiplies the probabilities. A
    masked score is raised to a finite number that float16 holds too, because a plain softmax gives NaN for a row of
    -inf. One difference remains: a row whose every entry is finite but below -60000 counts as masked.

    Args:
        query: ``[..., L, E]``.
        key: ``[..., S, E]``.
        value: ``[..., S, V]``.
        attn_mask: ``[..., L, S]`` after broadcasting: bool (True attends) or float, added to the scores.
        dropout_p: Ignored: a program infers.
        is_causal: Whether position ``i`` attends to keys up to ``i`` only.
        scale: Of the scores, ``1 / sqrt(E)`` by default.
        enable_gqa: Whether each key and value head serves several query heads (axis -3).

    Returns:
        ``[..., L, V]``.
    """
    del dropout_p
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    query, key, value = (
        item if item.shape[:-2] == lead else item.expand(*lead, *item.shape[-2:]) for item in (query, key, value)
    )
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    queries, keys, values = (item.reshape(-1, *item.shape[-2:]) for item in (query * factor, key, value))
    scores = torch.bmm(queries, keys.transpose(1, 2)).reshape(*lead, query.shape[-2], key.shape[-2])
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], _MASKED, dtype=query.dtype).triu(1)
    attends = None
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attends = attn_mask.to(query.dtype)
        scores = scores + (attends - 1.0) * -_MASKED
    elif attn_mask is not None:
        attends = torch.clamp(torch.clamp(attn_mask, min=_NEVER) - _NEVER, 0.0, 1.0)  # 0 where -inf, else 1
        scores = scores + torch.clamp(attn_mask, min=_MASKED)
    weights = torch.softmax(scores, -1)
    weights = weights if attends is None else weights * attends
    attended = torch.bmm(weights.reshape(-1, *weights.shape[-2:]), values)
    return attended.reshape(*lead, query.shape[-2], value.shape[-1])


def hardsigmoid(x: Tensor) -> Tensor:
    """``relu6(x + 3) / 6``."""
    return functional.hardtanh(x + 3.0, 0.0, 6.0) / 6.0


def hardswish(x: Tensor) -> Tensor:
    """``x relu6(x + 3) / 6``."""
    return x * functional.hardtanh(x + 3.0, 0.0, 6.0) / 6.0


def gru(
    x: Tensor,
    state: Tensor,
    weights: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    """``torch.nn.GRU`` unrolled over time; the input's share of all steps is one matrix product.

    Args:
        x: ``[T, B, I]``, or ``[B, T, I]`` with ``batch_first``.
        state: ``[layers * directions, B, H]``.
        weights: ``w_ih [3H, I]``, ``w_hh [3H, H]`` and with ``has_biases`` ``b_ih``, ``b_hh`` of each direction.
        has_biases: Whether there are biases.
        num_layers: Layers on top of each other.
        dropout: Ignored: a program infers.
        train: Ignored.
        bidirectional: Whether each layer also reads backwards.
        batch_first: Which axis is time.

    Returns:
        Outputs ``[T, B, directions * H]`` (batch first if asked for) and final states ``[layers * directions, B, H]``.
    """
    del dropout, train

    def step(gates: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        (hidden,) = states
        size = hidden.shape[-1]
        recurrent = functional.linear(hidden, weight, bias)
        reset = torch.sigmoid(gates[..., :size] + recurrent[..., :size])
        update = torch.sigmoid(gates[..., size : 2 * size] + recurrent[..., size : 2 * size])
        new = torch.tanh(gates[..., 2 * size :] + reset * recurrent[..., 2 * size :])
        return (new + update * (hidden - new),)

    outputs, (hidden,) = _recurrent(x, (state,), weights, has_biases, num_layers, bidirectional, batch_first, step)
    return outputs, hidden


def lstm(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``torch.nn.LSTM`` (without projection) unrolled over time.

    Args:
        x: As of :func:`gru`.
        states: Hidden and cell state, each ``[layers * directions, B, H]``.
        weights: As of :func:`gru`, with 4H rows (input, forget, cell, output).
        has_biases: As of :func:`gru`.
        num_layers: As of :func:`gru`.
        dropout: Ignored.
        train: Ignored.
        bidirectional: As of :func:`gru`.
        batch_first: As of :func:`gru`.

    Returns:
        Outputs, final hidden states, final cell states.
    """
    del dropout, train

    def step(gates: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        hidden, cell = states
        size = hidden.shape[-1]
        gates = gates + functional.linear(hidden, weight, bias)
        enter, forget, new, leave = (gates[..., part * size : (part + 1) * size] for part in range(4))
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(cell), cell

    outputs, (hidden, cell) = _recurrent(
        x, tuple(states), weights, has_biases, num_layers, bidirectional, batch_first, step
    )
    return outputs, hidden, cell


Step = Callable[[Tensor, tuple[Tensor, ...], Tensor, Tensor | None], tuple[Tensor, ...]]


def _recurrent(
    x: Tensor,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    step: Step,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run ``step`` over time in every layer and direction; time is kept as an axis of size 1, which XNNPACK slices."""
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    group = 4 if has_biases else 2
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        sequences = []
        for direction in range(directions):
            index = layer * directions + direction
            w_in, w_hidden, *biases = weights[index * group : (index + 1) * group]
            b_in, b_hidden = biases if has_biases else (None, None)
            gates = functional.linear(x, w_in, b_in)
            current = tuple(state[index : index + 1] for state in states)
            steps = []
            for time in range(x.shape[0]) if direction == 0 else reversed(range(x.shape[0])):
                current = step(gates[time : time + 1], current, w_hidden, b_hidden)
                steps.append(current[0])
            finals.append(current)
            sequences.append(torch.cat(steps if direction == 0 else steps[::-1]))
        x = sequences[0] if directions == 1 else torch.cat(sequences, -1)
    finals_by_state = tuple(torch.cat(parts) for parts in zip(*finals, strict=True))
    return (x.transpose(0, 1) if batch_first else x), finals_by_state


DECOMPOSITIONS: dict[Any, Decomposition] = {
    _ATEN.scaled_dot_product_attention.default: attention,
    _ATEN.hardsigmoid.default: hardsigmoid,
    _ATEN.hardswish.default: hardswish,
    _ATEN.gru.input: gru,
    _ATEN.lstm.input: lstm,
}
"""aten operation -> its decomposition."""


def operations_of(program: ExportedProgram) -> set[Any]:
    """Return the targets of all operations of a program, nested graphs included."""
    return {
        node.target
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if node.op == "call_function"
    }


def decompose(program: ExportedProgram, operations: Iterable[Any] = tuple(DECOMPOSITIONS)) -> ExportedProgram:
    """Replace operations by their decompositions here; all others stay as they are.

    Args:
        program: Any program; it is not changed.
        operations: Keys of ``DECOMPOSITIONS``.

    Returns:
        The program itself when it has none of them.
    """
    wanted = {operation: DECOMPOSITIONS[operation] for operation in operations}
    if not wanted.keys() & operations_of(program):
        return program
    edit = ProgramEdit.of(program)
    for node in edit.graph.find_nodes(op="call_function", target=_ATEN.view.default):
        # the original attention returns the memory layout that a following view was traced with; these do not
        node.target = _ATEN.reshape.default
    decomposed: ExportedProgram = edit.finish().run_decompositions(wanted)
    return decomposed


def unrolled_steps(program: ExportedProgram) -> int:
    """Return the length of the longest sequence that a recurrent layer of the program runs over, 0 without any."""
    longest = 0
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target in (_ATEN.gru.input, _ATEN.lstm.input):
            shape = node.args[0].meta["val"].shape
            longest = max(longest, int(shape[1] if node.args[-1] else shape[0]))
    return longest
