"""What a rule may ask of an operation. Each condition says what it found, in words, or None where it does not hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekit.formats.coreml.placement.facts import STATES, OperationFacts, Tensor

Axis = Literal["width", "height", "channel"]
_FROM_END: dict[Axis, int] = {"width": 1, "height": 2, "channel": 3}
"""Where an axis of ``[N, C, H, W]`` is, counted from the end; shorter shapes have no such axis."""


class _Condition(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Always(_Condition):
    """The type of the operation is all."""

    kind: Literal["always"]

    def finds(self, facts: OperationFacts) -> str | None:
        """Hold for every operation; there is nothing to add to the rule."""
        del facts
        return ""


class Dtype(_Condition):
    """It reads or writes values of one of these dtypes."""

    kind: Literal["dtype"]
    of: tuple[str, ...] = Field(min_length=1)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at values that are not constant."""
        for tensor in facts.activations:
            if tensor.type.dtype in self.of:
                verb = "writes" if tensor in facts.outputs else "reads"
                return f"it {verb} {tensor.type.dtype} values"
        return None


class Rank(_Condition):
    """A value has more dimensions than these."""

    kind: Literal["rank"]
    above: int = Field(ge=0)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at values that are not constant."""
        for tensor in facts.activations:
            if tensor.type.shape is not None and len(tensor.type.shape) > self.above:
                return f"{len(tensor.type.shape)} dimensions ({_shape(tensor)}); at most {self.above}"
        return None


class Extent(_Condition):
    """A value is longer than this along an axis."""

    kind: Literal["extent"]
    above: dict[Axis, int] = Field(min_length=1)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at values that are not constant."""
        for tensor in facts.activations:
            shape = tensor.type.shape or ()
            for axis, limit in self.above.items():
                place = _FROM_END[axis]
                size = shape[-place] if len(shape) >= place else None
                if size is not None and size > limit:
                    return f"{axis} {size} ({_shape(tensor)}); at most {limit}"
        return None


class Kernel(_Condition):
    """The kernel of a convolution is larger than this."""

    kind: Literal["kernel"]
    width: int = Field(ge=1)
    height: int = Field(ge=1)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at the last two dimensions of the weight; a kernel of one dimension lies along the width."""
        weight = facts.input("weight")
        spatial = (weight.type.shape or ())[2:] if weight is not None else ()
        for axis, size, limit in zip(("width", "height"), reversed(spatial), (self.width, self.height), strict=False):
            if size is not None and size > limit:
                return f"a kernel of {axis} {size}; at most {limit}"
        return None


class SpatialDimensions(_Condition):
    """A convolution or pooling over more spatial dimensions than these."""

    kind: Literal["spatial_dimensions"]
    above: int = Field(ge=1)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at the rank of what it reads."""
        read = facts.input("x")
        spatial = len(read.type.shape or ()) - 2 if read is not None else 0
        return f"{spatial} spatial dimensions; at most {self.above}" if spatial > self.above else None


class Setting(_Condition):
    """A setting of the operation has one of these words, or a number above this."""

    kind: Literal["setting"]
    parameter: str
    words: tuple[str, ...] = ()
    above: int | None = None

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at the constant that is bound to the parameter."""
        word = facts.word(self.parameter)
        if word in self.words:
            return f"{self.parameter} {word}"
        largest = max(facts.integers(self.parameter) or (0,))
        if self.above is not None and largest > self.above:
            return f"{self.parameter} {largest}; at most {self.above}"
        return None


class PadsChannels(_Condition):
    """Padding of another dimension than height and width."""

    kind: Literal["pads_channels"]

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at ``pad``: a pair a dimension, for the last dimensions of the input."""
        pad = facts.integers("pad") or ()
        return "it pads another dimension than height and width" if any(pad[:-4]) else None


class ReducedExtent(_Condition):
    """A reduction along an axis longer than this."""

    kind: Literal["reduced_extent"]
    above: int = Field(ge=1)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at the axis of the reduction."""
        read = facts.input("x")
        axes = facts.integers("axis") or facts.integers("axes") or ()
        shape = read.type.shape or () if read is not None else ()
        sizes = [shape[axis] or 0 for axis in axes if -len(shape) <= axis < len(shape)]
        longest = max(sizes, default=0)
        return f"it reduces {longest} elements; at most {self.above}" if longest > self.above else None


class FreeShape(_Condition):
    """A size of a value is known at run time only."""

    kind: Literal["free_shape"]
    listed: bool
    """True: it is one of several listed shapes; False: it lies in a range."""

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at values that are not constant."""
        if facts.listed_shapes != self.listed:
            return None
        free = next((tensor for tensor in facts.activations if _is_free(tensor)), None)
        return f"the shape of {free.name!r} is free ({free.type})" if free is not None else None


class InControlFlow(_Condition):
    """It lies in the body of a loop or a condition."""

    kind: Literal["in_control_flow"]

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at what it lies in."""
        return f"it lies in the body of {facts.inside}" if facts.inside is not None else None


class StateWidth(_Condition):
    """The last size of a state is no multiple of this."""

    kind: Literal["state_width"]
    multiple_of: int = Field(ge=2)

    def finds(self, facts: OperationFacts) -> str | None:
        """Look at the states it reads or writes."""
        if facts.operation.type not in STATES:
            return None
        for tensor in facts.inputs:
            shape = tensor.type.shape
            if tensor.type.kind == "state" and shape and (shape[-1] or 0) % self.multiple_of:
                return f"the state {tensor.name!r} is {shape[-1]} wide; expected a multiple of {self.multiple_of}"
        return None


Condition = Annotated[
    Always
    | Dtype
    | Rank
    | Extent
    | Kernel
    | SpatialDimensions
    | Setting
    | PadsChannels
    | ReducedExtent
    | FreeShape
    | InControlFlow
    | StateWidth,
    Field(discriminator="kind"),
]


def _is_free(tensor: Tensor) -> bool:
    return tensor.type.shape is None or None in tensor.type.shape


def _shape(tensor: Tensor) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in tensor.type.shape or ())
    return f"{tensor.name!r} is [{sizes}]"
