"""Elementwise arithmetic, comparison and choice, in whatever order of axes the operands lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Operand, Value

_ATEN = torch.ops.aten


def _binary(target: Callable[..., Any], *, fused: bool = False) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        (left, right), layout = call.emit.aligned([call.input(0), call.input(1)])
        result = call.call(target, left, right)
        return call.value(call.activated(result) if fused else result, layout)

    return translate


def _unary(*targets: Callable[..., Any]) -> Callable[[Call], Value]:
    def translate(call: Call) -> Value:
        source = call.input(0)
        (operand,), layout = call.emit.aligned([source])
        for target in targets:
            operand = call.call(target, operand)
        return call.value(operand, layout)

    return translate


def _integer_division(call: Call) -> Value:
    """``FLOOR_DIV``: rounds down, integers stay integers."""
    (left, right), layout = call.emit.aligned([call.input(0), call.input(1)])
    return call.value(call.call(_ATEN.div.Tensor_mode, left, right, rounding_mode="floor"), layout)


def _squared_difference(call: Call) -> Value:
    (left, right), layout = call.emit.aligned([call.input(0), call.input(1)])
    difference = call.call(_ATEN.sub.Tensor, left, right)
    return call.value(call.call(_ATEN.mul.Tensor, difference, difference), layout)


def _square(call: Call) -> Value:
    (operand,), layout = call.emit.aligned([call.input(0)])
    return call.value(call.call(_ATEN.mul.Tensor, operand, operand), layout)


def _add_n(call: Call) -> Value:
    operands, layout = call.emit.aligned([call.input(index) for index in range(len(call.inputs))])
    total: Operand = operands[0]
    for operand in operands[1:]:
        total = call.call(_ATEN.add.Tensor, total, operand)
    return call.value(total, layout)


def _select(call: Call) -> Value:
    """``SELECT``, ``SELECT_V2``: broadcasts; the older one also chooses whole rows by a condition of rank 1."""
    condition, yes, no = (call.input(index) for index in range(3))
    if call.info.type == "SELECT" and condition.rank == 1 and yes.rank > 1:
        shape = [condition.shape[0], *[1] * (yes.rank - 1)]
        chosen = call.call(_ATEN.reshape.default, call.emit.operand(condition), shape)
        return call.value(call.call(_ATEN.where.self, chosen, call.operand(1), call.operand(2)))
    (first, second, third), layout = call.emit.aligned([condition, yes, no])
    return call.value(call.call(_ATEN.where.self, first, second, third), layout)


OPERATORS = {
    "ABS": _unary(_ATEN.abs.default),
    "ADD": _binary(_ATEN.add.Tensor, fused=True),
    "ADD_N": _add_n,
    "ATAN2": _binary(_ATEN.atan2.default),
    "CEIL": _unary(_ATEN.ceil.default),
    "COS": _unary(_ATEN.cos.default),
    "DIV": _binary(_ATEN.div.Tensor, fused=True),
    "EQUAL": _binary(_ATEN.eq.Tensor),
    "EXP": _unary(_ATEN.exp.default),
    "FLOOR": _unary(_ATEN.floor.default),
    "FLOOR_DIV": _integer_division,
    "FLOOR_MOD": _binary(_ATEN.remainder.Tensor),
    "GREATER": _binary(_ATEN.gt.Tensor),
    "GREATER_EQUAL": _binary(_ATEN.ge.Tensor),
    "LESS": _binary(_ATEN.lt.Tensor),
    "LESS_EQUAL": _binary(_ATEN.le.Tensor),
    "LOG": _unary(_ATEN.log.default),
    "LOGICAL_AND": _binary(_ATEN.logical_and.default),
    "LOGICAL_NOT": _unary(_ATEN.logical_not.default),
    "LOGICAL_OR": _binary(_ATEN.logical_or.default),
    "MAXIMUM": _binary(_ATEN.maximum.default),
    "MINIMUM": _binary(_ATEN.minimum.default),
    "MUL": _binary(_ATEN.mul.Tensor, fused=True),
    "NEG": _unary(_ATEN.neg.default),
    "NOT_EQUAL": _binary(_ATEN.ne.Tensor),
    "POW": _binary(_ATEN.pow.Tensor_Tensor),
    "ROUND": _unary(_ATEN.round.default),
    "RSQRT": _unary(_ATEN.rsqrt.default),
    "SELECT": _select,
    "SELECT_V2": _select,
    "SIGN": _unary(_ATEN.sign.default),
    "SIN": _unary(_ATEN.sin.default),
    "SQRT": _unary(_ATEN.sqrt.default),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": _binary(_ATEN.sub.Tensor, fused=True),
}
