"""Operations that coremltools does not read, or reads wrongly, written in ones that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from edgekit.program.decompositions import decompose
from edgekit.program.edit import ProgramEdit
from edgekit.program.quantization import dequantize_constant, is_dequantize

_ATEN = torch.ops.aten


def _filled(shape: Sequence[Any], value: float, dtype: torch.dtype) -> Tensor:
    return torch.full(list(shape), value, dtype=dtype)


def _like(value: float) -> Callable[..., Tensor]:
    def fill(x: Tensor, *, dtype: torch.dtype | None = None, **_options: object) -> Tensor:
        return _filled(x.shape, value, dtype or x.dtype)

    return fill


def _full_like(x: Tensor, value: float, *, dtype: torch.dtype | None = None, **_options: object) -> Tensor:
    return _filled(x.shape, value, dtype or x.dtype)


def _new(value: float) -> Callable[..., Tensor]:
    def fill(x: Tensor, size: Sequence[Any], *, dtype: torch.dtype | None = None, **_options: object) -> Tensor:
        return _filled(size, value, dtype or x.dtype)

    return fill


def _new_full(
    x: Tensor, size: Sequence[Any], value: float, *, dtype: torch.dtype | None = None, **_options: object
) -> Tensor:
    return _filled(size, value, dtype or x.dtype)


def _where_scalar_other(condition: Tensor, chosen: Tensor, other: float) -> Tensor:
    return torch.where(condition, chosen, _filled((), other, chosen.dtype))


def _where_scalar_self(condition: Tensor, chosen: float, other: Tensor) -> Tensor:
    return torch.where(condition, _filled((), chosen, other.dtype), other)


def _where_scalars(condition: Tensor, chosen: float, other: float) -> Tensor:
    dtype = torch.result_type(chosen, other)
    return torch.where(condition, _filled((), chosen, dtype), _filled((), other, dtype))


def _diff(x: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    parts = [part for part in (prepend, x, append) if part is not None]
    x = torch.cat(parts, dim) if len(parts) > 1 else x
    for _ in range(n):
        size = x.shape[dim]
        x = x.narrow(dim, 1, size - 1) - x.narrow(dim, 0, size - 1)
    return x


_TABLE: dict[Any, Callable[..., Any]] = {
    # coremltools reads dtype by position, torch.export passes it by name: zeros_like(mask, dtype=float) becomes a bool
    _ATEN.zeros_like.default: _like(0.0),
    _ATEN.ones_like.default: _like(1.0),
    _ATEN.full_like.default: _full_like,
    _ATEN.new_zeros.default: _new(0.0),
    _ATEN.new_ones.default: _new(1.0),
    _ATEN.new_full.default: _new_full,
    _ATEN.where.ScalarOther: _where_scalar_other,
    _ATEN.where.ScalarSelf: _where_scalar_self,
    _ATEN.where.Scalar: _where_scalars,
    _ATEN.diff.default: _diff,
}
_NOTHING = frozenset(
    {
        _ATEN.alias.default,
        _ATEN.detach.default,
        _ATEN.lift_fresh_copy.default,
        _ATEN.clone.default,
        _ATEN.detach_.default,
    }
)
MASKED = -3e4
"""What -inf becomes in constants and fills: float16 holds it, and a row of it does not turn a softmax into NaN."""


def rewrite(program: ExportedProgram) -> ExportedProgram:
    """Make a program that coremltools converts to what it means; recurrent layers are unrolled.

    Args:
        program: It is not changed.
    """
    program = decompose(program, (_ATEN.gru.input, _ATEN.lstm.input))
    program = program.run_decompositions(_TABLE)
    edit = ProgramEdit.of(program)
    for node in list(edit.graph.nodes):
        if node.op == "placeholder":
            constant = edit.constant(node)
            if constant is not None and constant.is_floating_point() and torch.isinf(constant).any():
                edit.replace_constant(node, _finite(constant))
        elif is_dequantize(node) and _is_scalar(edit.constant(node.args[0])):
            _fold(edit, node)
        elif node.op == "call_function" and node.target in _NOTHING:
            node.replace_all_uses_with(node.args[0])
        elif node.op == "call_function" and node.target in _FILLS:
            node.args = tuple(_finite_number(value) for value in node.args)
    return edit.finish()


def _is_scalar(constant: Tensor | None) -> bool:
    return constant is not None and constant.ndim == 0


def _fold(edit: ProgramEdit, dequantize: torch.fx.Node) -> None:
    """Write a quantized number as a real one: coremltools subtracts its zero point in int8, where -128 - 127 is 1."""
    value = dequantize_constant(edit, dequantize)
    with edit.graph.inserting_before(dequantize):
        number = edit.graph.call_function(_ATEN.full.default, ([], value.item()), {"dtype": value.dtype})
    number.meta = dict(dequantize.meta)
    dequantize.replace_all_uses_with(number)


_FILLS = frozenset({_ATEN.full.default, _ATEN.masked_fill.Scalar, _ATEN.scalar_tensor.default})


def _finite_number(value: Any) -> Any:
    return max(MASKED, value) if isinstance(value, float) else value


def _finite(constant: Tensor) -> Tensor:
    replaced = torch.where(torch.isneginf(constant.detach()), MASKED, constant.detach())
    return torch.nn.Parameter(replaced, requires_grad=False) if isinstance(constant, torch.nn.Parameter) else replaced
