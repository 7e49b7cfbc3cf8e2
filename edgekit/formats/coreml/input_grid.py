"""Quantized inputs: rounded to their grid in float32, before anything is rounded to float16.

Pixels that were scaled to -1..1 lie half way between two steps of an int8 grid, all of them: ``x / 127.5 - 1`` on steps
of ``1 / 127.5``. Float16 holds neither these values nor the scale, so that the rounding errors of float16 would decide
which step a pixel goes to, for a background of one colour in the same way everywhere. A network then sees another image
than the program does, although everything that is computed from there on agrees step by step.

So a value that comes from an input and is quantized is rounded to its grid first, with the program's own arithmetic
(``round(x * (1 / scale)) * scale``) in float32. The quantize operation after it, in float16, has no halves to decide:
scales and values in float16 are off by a thousandth at most, and 255 steps of a thousandth are no half step. It stays
where it is, with the dequantize operation and the layer behind it: Core ML computes those three in integers. The input
is float32 as before, which is converted on the way in anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from edgekit.formats.coreml.operators import INPUT_GRID
from edgekit.program.edit import ProgramEdit

_ATEN = torch.ops.aten
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_PREPARES = frozenset(
    {
        *(_ATEN.add, _ATEN.sub, _ATEN.mul, _ATEN.div),
        *(_ATEN.permute, _ATEN.transpose, _ATEN.view, _ATEN.reshape, _ATEN.unsqueeze, _ATEN.squeeze, _ATEN.flatten),
    }
)
"""What models do to an input before their first layer: normalise it, arrange it."""
_PREPARES_MIL = frozenset(
    {
        *("add", "sub", "mul", "real_div", "batch_norm"),  # coremltools makes a batch_norm of a mul and an add
        *("transpose", "reshape", "expand_dims", "squeeze"),
    }
)


def round_inputs(program: ExportedProgram) -> ExportedProgram:
    """Round what is quantized to its grid where it comes from an input; nothing else may lie between but preparation.

    Args:
        program: It is not changed. Quantized per tensor, the scales fixed.

    Returns:
        A program of the same results: the operations that were added change nothing that the quantize operations give.
    """
    edit = ProgramEdit.of(program)
    inputs = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT}
    for node in list(edit.graph.nodes):
        if node.op == "call_function" and node.target is _QUANTIZE and _comes_from(edit, node.args[0], inputs):
            _round_before(edit.graph, node)
    return edit.finish()


def _comes_from(edit: ProgramEdit, value: object, inputs: set[str]) -> bool:
    """Whether a value is a floating-point input, or one that was only prepared."""
    if not isinstance(value, fx.Node) or not value.meta["val"].is_floating_point():
        return False
    if value.op == "placeholder":
        return value.name in inputs
    if value.op != "call_function" or getattr(value.target, "overloadpacket", None) not in _PREPARES:
        return False
    computed = [operand for operand in value.all_input_nodes if edit.constant(operand) is None]
    return len(computed) == 1 and _comes_from(edit, computed[0], inputs)


def _round_before(graph: fx.Graph, quantize: fx.Node) -> None:
    source, scale = quantize.args[:2]
    value: Any = source
    with graph.inserting_before(quantize):
        for role, target, arguments in (
            ("steps", _ATEN.mul.Tensor, (1.0 / float(scale),)),  # type: ignore[arg-type]
            ("rounded", _ATEN.round.default, ()),
            ("values", _ATEN.mul.Tensor, (scale,)),
        ):
            value = graph.create_node("call_function", target, (value, *arguments), name=f"{INPUT_GRID}_{role}")
            value.meta["val"] = source.meta["val"]  # type: ignore[union-attr]
    quantize.replace_input_with(source, value)  # type: ignore[arg-type]


def is_before_the_grid(operation: Any) -> bool:
    """Whether a MIL operation rounds an input to its grid, or prepares nothing but that: it stays in float32."""
    if operation.name.startswith(INPUT_GRID):
        return True
    if operation.op_type not in _PREPARES_MIL:
        return False
    readers = operation.outputs[0].child_ops
    return bool(readers) and all(is_before_the_grid(reader) for reader in readers)
