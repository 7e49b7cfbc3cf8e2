"""Element by element (``elementwise_unary.py``, ``elementwise_binary.py`` of iOS15 and iOS17)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.prepare import held_in
from edgekit.formats.coreml.evaluator.registry import Call, operation

_NAMES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


def _unary(name: str, function: Callable[[Tensor], Tensor], *, exact: bool = False) -> None:
    def execute(call: Call) -> Tensor:
        return function(call.tensor())

    execute.__doc__ = f"``iOS15.{name}``: of each element."
    operation(name, exact=exact)(execute)


_ROUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "acos": torch.acos, "asin": torch.asin, "atan": torch.atan, "atanh": torch.atanh, "cos": torch.cos,
    "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp, "exp2": torch.exp2, "sin": torch.sin, "sinh": torch.sinh,
    "sqrt": torch.sqrt, "square": torch.square, "tan": torch.tan,
}  # fmt: skip
_EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "ceil": torch.ceil, "floor": torch.floor, "identity": torch.clone, "sign": torch.sign,
    "logical_not": torch.logical_not,
}  # fmt: skip
for _name in _ROUNDED:
    _unary(_name, _ROUNDED[_name])
for _name in _EXACT:
    _unary(_name, _EXACT[_name], exact=True)


def _binary(name: str, function: Callable[[Tensor, Tensor], Tensor], *, exact: bool = False) -> None:
    def execute(call: Call) -> Tensor:
        return function(call.tensor("x"), call.tensor("y"))

    execute.__doc__ = f"``iOS15.{name}``: of two tensors, with numpy's broadcasting."
    operation(name, exact=exact)(execute)


_ROUNDED_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.true_divide, "pow": torch.pow,
    "floor_div": torch.floor_divide, "mod": torch.remainder,
}  # fmt: skip
_EXACT_PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "maximum": torch.maximum, "minimum": torch.minimum, "equal": torch.eq, "not_equal": torch.ne,
    "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt, "less_equal": torch.le,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor,
}  # fmt: skip
for _name in _ROUNDED_PAIRS:
    _binary(_name, _ROUNDED_PAIRS[_name])
for _name in _EXACT_PAIRS:
    _binary(_name, _EXACT_PAIRS[_name], exact=True)


@operation("round", exact=True)
def round_(call: Call) -> Tensor:
    """``iOS15.round``: halves go to the even neighbour, as coremltools' value inference (numpy) does."""
    return torch.round(call.tensor())


@operation("clip", exact=True)
def clip(call: Call) -> Tensor:
    """``iOS15.clip``: into ``[alpha, beta]``."""
    return call.tensor().clamp(call.number("alpha"), call.number("beta"))


@operation("threshold", exact=True)
def threshold(call: Call) -> Tensor:
    """``iOS15.threshold``: ``max(x, alpha)``."""
    return call.tensor().clamp(min=call.number("alpha"))


@operation("inverse")
def inverse(call: Call) -> Tensor:
    """``iOS15.inverse``: ``1 / (x + epsilon)``."""
    return 1 / (call.tensor() + call.number("epsilon", 1e-4))


@operation("log")
def log(call: Call) -> Tensor:
    """``iOS15.log``: ``log(x + epsilon)``; the default epsilon, 1e-45, is zero in float16."""
    return torch.log(call.tensor() + call.number("epsilon", 1e-45))


@operation("rsqrt")
def rsqrt(call: Call) -> Tensor:
    """``iOS15.rsqrt``: ``1 / sqrt(x + epsilon)``; the default epsilon, 1e-12, is zero in float16."""
    return torch.rsqrt(call.tensor() + call.number("epsilon", 1e-12))


@operation("cast")
def cast(call: Call) -> Tensor:
    """``iOS15.cast``, ``iOS17.cast``: to integers towards zero, to bool whether it is not zero.

    Values that an integer dtype cannot hold wrap, as coremltools' value inference does; Core ML says nothing of them.
    """
    x, name = call.tensor(), call.word("dtype")
    wanted = held_in(_NAMES.get(name, name))
    if name == "uint16":
        return x.to(torch.int64).remainder(1 << 16).to(wanted)
    if x.is_floating_point() and not wanted.is_floating_point and wanted is not torch.bool:
        return x.to(torch.int64).to(wanted)  # torch leaves the conversion of floats out of range undefined
    return x.to(wanted)


@operation("select", exact=True)
def select(call: Call) -> Tensor:
    """``iOS15.select``: ``a`` where ``cond`` is not zero, else ``b``; the three are broadcast."""
    return torch.where(call.tensor("cond").bool(), call.tensor("a"), call.tensor("b"))
