"""A converted ``.tflite`` file in memory, and its inputs and outputs put in the model's own order."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import ToolError
from edgekit.program.tflite import flatbuffer
from edgekit.records import SkippedLayer

_INPUTS, _OUTPUTS = 6, 8
"""Places of the index vectors in the table of a graph (schema.fbs: SubGraph.inputs, SubGraph.outputs)."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion gave.

    Attributes:
        content: The file.
        notes: What the user should know of how it was made.
        skipped: Layers with weights that stayed in floating point.
    """

    content: bytes
    notes: tuple[str, ...] = ()
    skipped: tuple[SkippedLayer, ...] = ()


def in_order(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Put the inputs and outputs of a file in an order, by the names of its signature.

    TensorFlow's converter lists them in the order of a hash table. The index vectors are changed in place; everything
    else is left as it was written.

    Raises:
        ToolError: The file has other names.
    """
    model = flatbuffer.parse(content)
    signature = (model.signatureDefs or [None])[0]
    buffer = bytearray(content)
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    for place, side, wanted in ((_INPUTS, "inputs", inputs), (_OUTPUTS, "outputs", outputs)):
        listed: Any = getattr(signature, side) or []
        indices = {flatbuffer.text(item.name): int(item.tensorIndex) for item in listed}
        held = flatbuffer.indices(getattr(model.subgraphs[0], side))
        order = [indices.get(name, -1) for name in wanted]
        if sorted(order) != sorted(held):
            raise ToolError(
                f"TensorFlow's converter changed the {side}: expected {list(wanted)}, received {sorted(indices)}",
                stage="program:convert",
            )
        start = graph._tab.Vector(graph._tab.Offset(place)) if held else 0
        for position, index in enumerate(order):
            struct.pack_into("<i", buffer, start + 4 * position, index)
    return bytes(buffer)
