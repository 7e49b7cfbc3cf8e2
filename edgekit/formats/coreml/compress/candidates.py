"""Which constants of a converted model are weights worth making smaller, and which layer each belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from edgekit.program.edit import ProgramEdit
from edgekit.program.graph import module_stack
from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.records import WeightCompression

SKIP_PLACE = "export.compression.skip"
_OUTPUT_INPUT = {"conv": (0, 1), "conv_transpose": (1, 0), "linear": (0, 1), "gather": (0, 1)}
"""Operation -> output and input axis of its weight. coremltools' ``select_input_output_channel_axis``."""
_HALF = "_to_fp16"
"""What coremltools appends to a constant's name when it rounds it to float16."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A weight of a converted model.

    Attributes:
        name: Of the constant.
        layer: Dotted path of the layer, or the constant's name where the program does not say.
        operation: What reads it.
        values: As converted (float16 or float32).
        output_axis, input_axis: Along which channels lie.
        groups: Of a grouped convolution, else 1.
    """

    name: str
    layer: str
    operation: str
    values: NDArray[np.floating]
    output_axis: int
    input_axis: int
    groups: int = 1

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.values.shape[self.output_axis])

    @property
    def zero_share(self) -> float:
        """Share of exact zeros."""
        return float(np.mean(self.values == 0))


@dataclass(frozen=True, slots=True)
class Candidates:
    """The weights to compress, and why the others are left: ``(layer, reason)``."""

    chosen: tuple[Candidate, ...]
    left: tuple[tuple[str, str], ...]

    def only(self, quantized: Collection[str]) -> Candidates:
        """Leave out what a program did not quantize; ``quantized`` are constants as the program calls them."""
        chosen = tuple(found for found in self.chosen if found.name.removesuffix(_HALF) in quantized)
        others = (found for found in self.chosen if found not in chosen)
        return Candidates(chosen, (*self.left, *((found.layer, "the program leaves it") for found in others)))


def find_candidates(specification: Any, program: ExportedProgram, compression: WeightCompression) -> Candidates:
    """Find the weights of convolutions, linear layers, matrix products and embeddings.

    Args:
        specification: The converted model as coremltools holds it in memory (``mlmodel._mil_program``).
        program: What was converted: names layers, and their kinds.
        compression: The smallest size, and layers to leave alone.

    Raises:
        RecipeError: A skip rule matches no layer.
    """
    layers = _layers(program)
    picked = select_layers(list(dict.fromkeys(layers.values())), compression.skip, SKIP_PLACE)
    chosen, left = [], []
    for found in _weights(specification, {name: layer.name for name, layer in layers.items()}):
        if found.layer in picked:
            left.append((found.layer, f"left alone by the rule {picked[found.layer]!r}"))
        elif found.values.size < compression.smallest:
            left.append((found.layer, f"{found.values.size} weights, fewer than {compression.smallest}"))
        elif not np.isfinite(found.values).all():
            left.append((found.layer, "not every weight is finite"))
        else:
            chosen.append(found)
    return Candidates(tuple(chosen), tuple(left))


def _layers(program: ExportedProgram) -> dict[str, LayerInfo]:
    """Constant's name in the converted model -> the layer that reads it."""
    edit = ProgramEdit.of(program)
    found = {}
    for node in edit.graph.nodes:
        if node.op == "placeholder" and edit.constant(node) is not None and node.users:
            stack = [(path, kind) for path, kind in module_stack(next(iter(node.users))) if path]
            path, kind = stack[-1] if stack else (edit.targets[node.name].rpartition(".")[0], "")
            found[node.name] = found[node.name + _HALF] = LayerInfo(path or node.name, kind)
    return found


def _weights(program: Any, layers: dict[str, str]) -> Iterator[Candidate]:
    for function in program.functions.values():
        pending = [function]
        while pending:
            for operation in pending.pop().operations:
                pending += operation.blocks
                if operation.op_type == "const":
                    yield from _weight(operation, layers)


def _weight(constant: Any, layers: dict[str, str]) -> Iterator[Candidate]:
    values = constant.outputs[0].val
    readers = constant.outputs[0].child_ops
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.ndim < 2 or not readers:
        return
    axes = {_axes(reader, constant.outputs[0]) for reader in readers}
    place = next(iter(axes))
    if len(axes) > 1 or place is None:  # read in several ways: no channel axis is right for all
        return
    reader = readers[0]
    groups = reader.groups.val if reader.op_type.startswith("conv") and reader.groups is not None else 1
    yield Candidate(
        name=constant.name,
        layer=layers.get(constant.name, constant.name),
        operation=reader.op_type,
        values=values,
        output_axis=place[0] % values.ndim,
        input_axis=place[1] % values.ndim,
        groups=int(groups),
    )


def _axes(reader: Any, weight: Any) -> tuple[int, int] | None:
    """Return output and input axis of a weight, None where the reader does not multiply with it (or look rows up)."""
    kind = reader.op_type
    if kind == "matmul":
        if reader.y is not weight:
            return (-1, -2) if reader.transpose_x.val else (-2, -1)
        return (-2, -1) if reader.transpose_y.val else (-1, -2)
    name = "x" if kind == "gather" else "weight"
    held = reader.inputs.get(name) if kind in _OUTPUT_INPUT else None
    return _OUTPUT_INPUT[kind] if held is weight else None
