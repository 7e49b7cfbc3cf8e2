"""Control flow and lists (``iOS15/control_flow.py``)."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.formats.coreml.evaluator.prepare import held_in
from edgekit.formats.coreml.evaluator.registry import Call, TensorList, Value, operation

_MOST_ITERATIONS = 1_000_000
"""Of a loop: a program that wants more does not end, for all practical purposes."""
_NAMES = {"fp16": "float16", "fp32": "float32"}


@operation("cond", exact=True)
def cond(call: Call) -> tuple[Value, ...]:
    """``iOS15.cond``: the first block when ``pred`` is true, else the second; blocks take nothing."""
    return call.run_block(0 if bool(call.tensor("pred")) else 1, ())


@operation("while_loop", exact=True)
def while_loop(call: Call) -> tuple[Value, ...]:
    """``iOS15.while_loop``: the second block, as long as the first one gives true; both take the loop's values."""
    found = call.value("loop_vars")
    values = found if isinstance(found, tuple) else (found,)
    for _ in range(_MOST_ITERATIONS):
        (proceed,) = call.run_block(0, values)
        if not isinstance(proceed, Tensor):
            raise call.refuse("a condition that is a tensor", type(proceed).__name__)
        if not bool(proceed):
            return values
        values = call.run_block(1, values)
    raise call.refuse(f"a loop of at most {_MOST_ITERATIONS} rounds", "one that goes on")


def _list(call: Call) -> TensorList:
    found = call.value("ls")
    if not isinstance(found, TensorList):
        raise call.refuse("a list for 'ls'", type(found).__name__)
    return found


def _item(call: Call, values: TensorList, index: int) -> Tensor:
    """An element; one that was never written is zeros where its shape is known."""
    if not 0 <= index < len(values.items):
        raise call.refuse(f"an index from 0 to {len(values.items) - 1}", index)
    found = values.items[index]
    if found is not None:
        return found
    if values.shape is None or None in values.shape:
        raise call.refuse("an element that was written before", f"element {index}, which was not")
    return torch.zeros([size or 0 for size in values.shape], dtype=values.dtype)


def _written(values: TensorList, index: int, value: Tensor) -> TensorList:
    items = [*values.items, *([None] * (index + 1 - len(values.items)))]
    items[index] = value
    return TensorList(items, values.shape, values.dtype)


@operation("make_list", exact=True)
def make_list(call: Call) -> TensorList:
    """``iOS15.make_list``: ``init_length`` elements that hold nothing yet; sizes that are words are free."""
    sizes = call.setting("elem_shape") if call.has("elem_shape") else None
    shape: tuple[int | None, ...] | None = None
    if sizes is not None:
        items = sizes if isinstance(sizes, list) else [sizes]
        shape = tuple(None if isinstance(size, str) else int(size) for size in items)  # type: ignore[arg-type]
    name = call.word("dtype", "fp32")
    return TensorList([None] * call.integer("init_length", 1), shape, held_in(_NAMES.get(name, name)))


@operation("list_length", exact=True)
def list_length(call: Call) -> Tensor:
    """``iOS15.list_length``: how many elements the list has."""
    return torch.tensor(len(_list(call).items), dtype=torch.int32)


@operation("list_read", exact=True)
def list_read(call: Call) -> Tensor:
    """``iOS15.list_read``: the element at ``index``."""
    return _item(call, _list(call), call.integer("index"))


@operation("list_write", exact=True)
def list_write(call: Call) -> TensorList:
    """``iOS15.list_write``: a list with ``value`` at ``index``; it grows where the index is beyond its end."""
    index = call.integer("index")
    if index < 0:
        raise call.refuse("an index of 0 or more", index)
    return _written(_list(call), index, call.tensor("value"))


@operation("list_gather", exact=True)
def list_gather(call: Call) -> Tensor:
    """``iOS15.list_gather``: the elements at ``indices``, stacked along a new first dimension."""
    values = _list(call)
    return torch.stack([_item(call, values, index) for index in call.integers("indices")])


@operation("list_scatter", exact=True)
def list_scatter(call: Call) -> TensorList:
    """``iOS15.list_scatter``: the slices of ``value`` along its first dimension go to ``indices``; the list grows."""
    values = _list(call)
    for index, value in zip(call.integers("indices"), call.tensor("value"), strict=True):
        values = _written(values, index, value)
    return values
