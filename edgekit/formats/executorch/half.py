"""Turn a float32 program into one that computes in float16, with float32 inputs and outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

from edgekit.program.edit import ProgramEdit

_LOWEST = float(torch.finfo(torch.float16).min)
_HIGHEST = float(torch.finfo(torch.float16).max)


def to_half(program: ExportedProgram) -> ExportedProgram:
    """Convert constants and arithmetic to float16; a cast follows each float input and precedes each float output.

    Finite constants beyond float16's range (masks filled with float32's lowest number) become its largest ones, so
    that they do not turn into infinities.

    Args:
        program: A float32 program; it is not changed.
    """
    edit = ProgramEdit.of(program)
    for node in list(edit.graph.nodes):
        if node.op == "placeholder":
            constant = edit.constant(node)
            if constant is not None and constant.dtype == torch.float32:
                edit.replace_constant(node, _saturated(constant))
            elif node.name in program.graph_signature.user_inputs and _is_float32(node):
                _cast_input(edit, node)
        elif node.op == "call_function" and not node.meta.get("edgekit_cast"):
            node.args = _narrow(node.args)
            node.kwargs = _narrow(node.kwargs)
    _cast_outputs(edit)
    # the nodes still say float32: one pass of (no) decompositions computes shapes and dtypes anew
    half: ExportedProgram = edit.finish().run_decompositions({})
    return half


def _saturated(constant: torch.Tensor) -> torch.Tensor:
    tensor = constant.detach()
    half = torch.where(torch.isfinite(tensor), tensor.clamp(_LOWEST, _HIGHEST), tensor).to(torch.float16)
    return torch.nn.Parameter(half, requires_grad=False) if isinstance(constant, torch.nn.Parameter) else half


def _is_float32(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _cast(edit: ProgramEdit, node: torch.fx.Node, dtype: torch.dtype) -> torch.fx.Node:
    cast = edit.graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    cast.meta = {"val": node.meta["val"].to(dtype), "edgekit_cast": True}
    return cast


def _cast_input(edit: ProgramEdit, node: torch.fx.Node) -> None:
    users = list(node.users)
    first_operation = next(other for other in edit.graph.nodes if other.op != "placeholder")
    with edit.graph.inserting_before(first_operation):
        cast = _cast(edit, node, torch.float16)
    for user in users:
        user.replace_input_with(node, cast)


def _cast_outputs(edit: ProgramEdit) -> None:
    output = edit.graph.output_node()
    with edit.graph.inserting_before(output):
        returned = [
            _cast(edit, node, torch.float32) if isinstance(node, torch.fx.Node) and _is_float32(node) else node
            for node in output.args[0]  # type: ignore[union-attr]
        ]
    output.args = (tuple(returned),)


def _narrow(value: Any) -> Any:
    """Replace float32 by float16 in the arguments of an operation, and numbers that float16 cannot hold."""
    if value is torch.float32:
        return torch.float16
    if isinstance(value, float) and abs(value) != float("inf"):
        return min(max(value, _LOWEST), _HIGHEST)
    if isinstance(value, (list, tuple)):
        return type(value)(_narrow(item) for item in value)
    if isinstance(value, dict):
        return {key: _narrow(item) for key, item in value.items()}
    return value
