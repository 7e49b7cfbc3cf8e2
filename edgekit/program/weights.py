"""Folded weights of quantized programs: integers followed by a dequantize operation, and their other forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from edgekit.program.edit import ProgramEdit
from edgekit.program.quantization import dequantize_constant, is_dequantize, is_quantize, quantize_before
from edgekit.program.rewrites import CONVOLUTIONS, LINEAR, TRANSPOSED

EMBEDDING = (torch.ops.aten.embedding.default,)


def weight_argument(node: torch.fx.Node) -> int | None:
    """Return the position of the weight that an operation multiplies with, None for other operations."""
    if node.target in (*CONVOLUTIONS, *TRANSPOSED, *LINEAR):
        return 1
    return 0 if node.target in EMBEDDING else None


@dataclass(frozen=True, slots=True)
class FoldedWeight:
    """A weight as a quantized program holds it.

    Attributes:
        name: Of the constant in the program.
        constant: The placeholder that stands for the integers.
        dequantize: The operation that turns them into real numbers.
        integers: int8 (``w4`` too: its values lie in [-7, 7]).
    """

    name: str
    constant: torch.fx.Node
    dequantize: torch.fx.Node
    integers: torch.Tensor


def folded_weights(edit: ProgramEdit) -> Iterator[FoldedWeight]:
    """Walk the folded weights in graph order."""
    for node in list(edit.graph.nodes):
        if is_dequantize(node):
            integers = edit.constant(node.args[0])
            if integers is not None:
                constant = node.args[0]
                yield FoldedWeight(edit.targets[constant.name], constant, node, integers)


def unfold_weights(program: ExportedProgram) -> ExportedProgram:
    """Turn folded weights (integers → dequantize) into float weights → quantize → dequantize.

    Lossless: the float weights are the integers times their scale, so that quantizing gives the same integers.
    The form that litert-torch lowers to integer weights.

    Args:
        program: A program with folded weights; one without is returned as a copy.
    """
    edit = ProgramEdit.of(program)
    for weight in list(folded_weights(edit)):
        real = dequantize_constant(edit, weight.dequantize)
        if edit.constant(weight.constant) is weight.integers:  # a constant that two operations read is replaced once
            edit.replace_constant(weight.constant, real)
        quantize_before(edit, weight.dequantize)
    return edit.finish()


def dequantize_weights(program: ExportedProgram) -> ExportedProgram:
    """Turn folded weights into float constants that lie on the quantization grid: a float program.

    Quantizing these constants again with the same rule (symmetric, per channel, scale = max|w| / 127) gives the same
    integers. Activation quantization stays; see :func:`strip_activation_quantization`.
    """
    edit = ProgramEdit.of(program)
    for weight in list(folded_weights(edit)):
        if edit.constant(weight.constant) is weight.integers:
            edit.replace_constant(weight.constant, dequantize_constant(edit, weight.dequantize))
        weight.dequantize.replace_all_uses_with(weight.constant)
        edit.graph.erase_node(weight.dequantize)
    return edit.finish()


def strip_activation_quantization(program: ExportedProgram) -> ExportedProgram:
    """Remove quantize/dequantize pairs of activations, static and dynamic; folded weights stay as they are."""
    edit = ProgramEdit.of(program)
    for node in list(edit.graph.nodes):
        if not is_dequantize(node) or not is_quantize(node.args[0]):
            continue
        real = node.args[0].args[0]
        if edit.constant(real) is None:  # of a constant it is an unfolded weight, not an activation
            node.replace_all_uses_with(real)
    return edit.finish()
