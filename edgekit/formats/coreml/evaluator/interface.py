"""Which inputs a function of a package takes: fixed shapes, ranges, and lists of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.errors import DataError

_NO_BOUND = -1


@dataclass(frozen=True, slots=True)
class AllowedShapes:
    """Shapes that an input takes.

    Attributes:
        name: Of the input.
        shapes: Listed ones; empty: a range.
        ranges: Least and greatest size of each dimension, the greatest None where there is no bound; empty: a list.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    ranges: tuple[tuple[int, int | None], ...]

    def check(self, shape: Sequence[int]) -> None:
        """Check a shape.

        Raises:
            DataError: The input does not take it.
        """
        if self.shapes and tuple(shape) in self.shapes:
            return
        if self.ranges and len(shape) == len(self.ranges) and all(map(_inside, shape, self.ranges)):
            return
        raise DataError(f"input {self.name!r}: expected {self}; received {list(shape)}")

    def __str__(self) -> str:
        if self.shapes:
            return "shape " + " or ".join(str(list(shape)) for shape in self.shapes)
        sizes = [str(low) if low == high else f"{low}..{high or ''}" for low, high in self.ranges]
        return f"shape [{', '.join(sizes)}]"


def _inside(size: int, limits: tuple[int, int | None]) -> bool:
    return limits[0] <= size and (limits[1] is None or size <= limits[1])


def allowed_shapes(features: Any) -> dict[str, AllowedShapes]:
    """Read the shapes that a package's description allows.

    Args:
        features: ``description.input`` of the specification, or that of one of its functions.

    Returns:
        By name of the input; inputs that are no arrays (images) are left out.
    """
    found = {}
    for feature in features:
        if feature.type.WhichOneof("Type") != "multiArrayType":
            continue
        array = feature.type.multiArrayType
        kind = array.WhichOneof("ShapeFlexibility")
        shapes: tuple[tuple[int, ...], ...] = (tuple(array.shape),) if array.shape else ()
        ranges: tuple[tuple[int, int | None], ...] = ()
        if kind == "enumeratedShapes":
            shapes = tuple(tuple(item.shape) for item in array.enumeratedShapes.shapes)
        elif kind == "shapeRange":
            limits = [(int(item.lowerBound), int(item.upperBound)) for item in array.shapeRange.sizeRanges]
            ranges = tuple((low, None if high == _NO_BOUND else high) for low, high in limits)
            shapes = ()
        if shapes or ranges:
            found[feature.name] = AllowedShapes(feature.name, shapes, ranges)
    return found
