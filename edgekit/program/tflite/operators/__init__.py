"""Translations of TFLite operators, one file a family. Each takes a ``Call`` and returns the values it computes."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.program.tflite.call import Translate
from edgekit.program.tflite.operators import (
    activation,
    blocks,
    control,
    convolution,
    creation,
    elementwise,
    indexing,
    matmul,
    normalization,
    pooling,
    quantize,
    recurrent,
    reduction,
    resize,
    shape,
    slicing,
)

OPERATORS: Mapping[str, Translate] = {
    **activation.OPERATORS,
    **blocks.OPERATORS,
    **control.OPERATORS,
    **convolution.OPERATORS,
    **creation.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **matmul.OPERATORS,
    **normalization.OPERATORS,
    **pooling.OPERATORS,
    **quantize.OPERATORS,
    **recurrent.OPERATORS,
    **reduction.OPERATORS,
    **resize.OPERATORS,
    **shape.OPERATORS,
    **slicing.OPERATORS,
}
"""Operator's name in the schema -> its translation."""
