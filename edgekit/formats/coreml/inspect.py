"""What a ``.mlpackage`` says of itself, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.contracts import Inspection
from edgekit.formats.coreml.operators import read_operators
from edgekit.formats.coreml.package import read_package
from edgekit.records import TensorSpec

_MULTI_ARRAY = {65568: "float32", 65552: "float16", 65600: "float64", 131104: "int32", 131080: "int8"}
"""``ArrayFeatureType.ArrayDataType`` of coremltools' FeatureTypes.proto."""
UNKNOWN = "unknown"
"""Dtype of an input or output that is no array."""
_TARGETS = {6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18", 10: "iOS26"}
"""Specification version -> the first iOS that reads it."""


def inspect(path: Path) -> Inspection:
    """Inspect an ML program without running it; operations of every kind of Mac and phone, none left to another unit.

    Which unit (CPU, GPU, Neural Engine) takes an operation is decided on the device.

    Raises:
        ArtifactError: The package is missing, truncated, damaged or holds no ML program.
    """
    specification = read_package(path)
    version = specification.specificationVersion
    return Inspection(
        inputs=tuple(_spec(item) for item in specification.description.input),
        outputs=tuple(_spec(item) for item in specification.description.output),
        operators=read_operators(specification),
        metadata={
            "specification_version": str(version),
            "minimum_deployment_target": _TARGETS.get(version, f"newer than {max(_TARGETS.values())}"),
        },
    )


def _spec(feature: Any) -> TensorSpec:
    array = feature.type.multiArrayType
    shape: tuple[int | None, ...] = tuple(array.shape)
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        ranges = array.shapeRange.sizeRanges
        shape = tuple(
            size if limits.lowerBound == limits.upperBound else None for size, limits in zip(shape, ranges, strict=True)
        )
    return TensorSpec(name=feature.name, dtype=_MULTI_ARRAY.get(array.dataType, UNKNOWN), shape=shape)
