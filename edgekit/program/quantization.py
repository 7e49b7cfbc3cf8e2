"""Quantize and dequantize operations of a program, and their parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators
from torch.export import ExportedProgram

from edgekit.program.edit import ProgramEdit
from edgekit.records import Quantization

_OPS = torch.ops.quantized_decomposed

QUANTIZE_OF = {
    _OPS.dequantize_per_channel.default: _OPS.quantize_per_channel.default,
    _OPS.dequantize_per_tensor.default: _OPS.quantize_per_tensor.default,
    _OPS.dequantize_per_tensor.tensor: _OPS.quantize_per_tensor.tensor,
    _OPS.dequantize_per_token.default: _OPS.quantize_per_token.default,
}
"""Dequantize operation -> the quantize operation that it undoes."""
DEQUANTIZE = frozenset(QUANTIZE_OF)
QUANTIZE = frozenset(QUANTIZE_OF.values())
CHOOSE_SCALE = frozenset(
    {_OPS.choose_qparams.tensor, _OPS.choose_qparams_symmetric.tensor, _OPS.choose_qparams_per_token_asymmetric.default}
)
"""Operations that choose scales at run time: the mark of dynamic quantization."""


def is_quantize(node: object) -> bool:
    """Whether a node quantizes."""
    return isinstance(node, torch.fx.Node) and node.op == "call_function" and node.target in QUANTIZE


def is_dequantize(node: object) -> bool:
    """Whether a node dequantizes."""
    return isinstance(node, torch.fx.Node) and node.op == "call_function" and node.target in DEQUANTIZE


def quantization_of(edit: ProgramEdit, node: torch.fx.Node) -> Quantization | None:
    """Return the fixed scales of a quantize or dequantize operation, None where they are chosen at run time.

    Args:
        edit: The program that holds ``node``.
        node: One of ``QUANTIZE`` or ``DEQUANTIZE``.
    """
    per_channel = node.target in (_OPS.dequantize_per_channel.default, _OPS.quantize_per_channel.default)
    scale, zero_point = (_numbers(edit, argument) for argument in node.args[1:3])
    if scale is None or zero_point is None:
        return None
    arguments: tuple[Any, ...] = node.args
    quant_max, dtype = arguments[-2:] if node.target not in _PER_TOKEN else arguments[4:6]
    return Quantization(
        scale=scale,
        zero_point=tuple(int(point) for point in zero_point),
        axis=arguments[3] if per_channel else None,
        dtype="int4" if isinstance(quant_max, int) and quant_max <= 7 else str(dtype).removeprefix("torch."),
    )


_PER_TOKEN = (_OPS.dequantize_per_token.default, _OPS.quantize_per_token.default)


def _numbers(edit: ProgramEdit, argument: Any) -> tuple[float, ...] | None:
    if isinstance(argument, torch.fx.Node):
        constant = edit.constant(argument)
        return None if constant is None else tuple(float(value) for value in constant.flatten().tolist())
    return (float(argument),)


def output_quantizations(program: ExportedProgram) -> tuple[Quantization | None, ...]:
    """Return the quantization of each output of a program, None where an output is not quantized."""
    edit = ProgramEdit.of(program)
    returned = edit.graph.output_node().args[0]
    outputs = [node for node in returned if isinstance(node, torch.fx.Node)]  # type: ignore[union-attr]
    return tuple(quantization_of(edit, node) if is_dequantize(node) else None for node in map(_producer, outputs))


_VIEWS = frozenset(
    {
        torch.ops.aten.view.default,
        torch.ops.aten.reshape.default,
        torch.ops.aten.squeeze.dim,
        torch.ops.aten.squeeze.dims,
        torch.ops.aten.unsqueeze.default,
        torch.ops.aten.permute.default,
        torch.ops.aten.transpose.int,
        torch.ops.aten.flatten.using_ints,
    }
)
"""Operations that only move values: what they return lies on the grid of what they are given."""


def _producer(node: torch.fx.Node) -> torch.fx.Node:
    while node.op == "call_function" and node.target in _VIEWS and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
    return node


def dequantize_constant(edit: ProgramEdit, dequantize: torch.fx.Node) -> torch.Tensor:
    """Compute what a dequantize operation of a constant returns."""
    arguments = [edit.constant(value) if isinstance(value, torch.fx.Node) else value for value in dequantize.args]
    result: torch.Tensor = dequantize.target(*arguments)  # type: ignore[operator]
    return result


def quantize_before(edit: ProgramEdit, dequantize: torch.fx.Node) -> None:
    """Insert the quantize operation that ``dequantize`` undoes, with the same parameters, before it."""
    source = dequantize.args[0]
    with edit.graph.inserting_before(dequantize):
        quantize = edit.graph.call_function(QUANTIZE_OF[dequantize.target], dequantize.args)  # type: ignore[index]
    quantize.meta = {key: value for key, value in dequantize.meta.items() if key != "val"}
    real = source.meta["val"]  # type: ignore[union-attr]
    quantize.meta["val"] = real.to(dequantize.args[-1])
    dequantize.replace_input_with(source, quantize)  # type: ignore[arg-type]
