"""Translations of TFLite operators, one file a family. Each takes a ``Call`` and returns the values it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Value
from edgekit.program.tflite.operators import (
    activation,
    convolution,
    elementwise,
    matmul,
    pooling,
    quantize,
    reduction,
    shape,
)

Translate = Callable[[Call], Value | Sequence[Value]]

OPERATORS: Mapping[str, Translate] = {
    **activation.OPERATORS,
    **convolution.OPERATORS,
    **elementwise.OPERATORS,
    **matmul.OPERATORS,
    **pooling.OPERATORS,
    **quantize.OPERATORS,
    **reduction.OPERATORS,
    **shape.OPERATORS,
}
"""Operator's name in the schema -> its translation."""
