"""One operator of a ``.tflite`` graph with its operands, as the functions that translate operators see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import UnsupportedError
from edgekit.program.tflite.emitter import Emitter, Layout, Operand, Value, channels_first
from edgekit.program.tflite.graph import OperatorInfo, TensorInfo, activation_of
from edgekit.records import Quantization

_ATEN = torch.ops.aten

RunGraph = Callable[[int, Sequence[Value]], list[Value]]
"""Reads another graph of the file with these inputs, and returns its outputs."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operator to translate.

    Attributes:
        info: What the file says of it.
        inputs: Its operands, None for those left out.
        outputs: The tensors that it computes.
        emit: Writes the program.
        label: Where it sits in the model, for messages.
        run_graph: For control flow.
    """

    info: OperatorInfo
    inputs: tuple[Value | None, ...]
    outputs: tuple[TensorInfo, ...]
    emit: Emitter
    label: str
    run_graph: RunGraph

    @property
    def options(self) -> Any:
        """The operator's options as the generated schema class; None where it has none."""
        return self.info.options

    def input(self, index: int) -> Value:
        """Return an operand that must be there.

        Raises:
            UnsupportedError: It was left out.
        """
        found = self.optional(index)
        if found is None:
            raise self.refusal(f"its input {index} is missing", "a file written by TensorFlow's converter")
        return found

    def optional(self, index: int) -> Value | None:
        """Return an operand, None where it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def operand(self, index: int, layout: Layout = "file") -> Operand:
        """Return an operand as real numbers in an order of axes."""
        return self.emit.operand(self.input(index), layout)

    def constant(self, index: int, what: str) -> Tensor:
        """Return an operand that must be known while reading.

        Args:
            index: Of the operand.
            what: What it is, for the message.

        Raises:
            UnsupportedError: It is computed from the model's input.
        """
        constant = self.input(index).constant
        if constant is None:
            raise self.refusal(
                f"{what} depends on the model's input, and a program has fixed shapes and one path",
                f"a model in which {what} is a constant",
            )
        return constant

    def integers(self, index: int, what: str) -> list[int]:
        """Return a constant operand as a list of integers; see :meth:`constant`."""
        return [int(number) for number in self.constant(index, what).flatten().tolist()]

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Add an operation; see :meth:`Emitter.call`."""
        return self.emit.call(target, *args, **kwargs)

    def value(self, operand: Operand, layout: Layout = "file", output: int = 0) -> Value:
        """Make the value of an output, quantized as the file says."""
        return self.emit.value(operand, layout, self.outputs[output].quantization)

    def regrid(self, value: Value, output: int = 0) -> Value:
        """Put a finished value on the grid of an output; one that is on it already, or has none, is returned as is."""
        quantization = self.outputs[output].quantization
        if quantization == value.quantization or value.constant is not None:
            return value
        return self.emit.value(*self.emit.as_it_lies(value), quantization)

    def axis(self, axis: int, value: Value, layout: Layout) -> int:
        """Return where an axis of the file lies in an order of axes."""
        axis %= max(value.rank, 1)
        return channels_first(value.rank).index(axis) if layout == "channels-first" else axis

    def activated(self, operand: Operand) -> Operand:
        """Apply the operator's fused activation.

        Raises:
            UnsupportedError: An activation that the format knows and programs do not.
        """
        name = activation_of(self.options)
        if name == "NONE":
            return operand
        steps: dict[str, tuple[Any, ...]] = {
            "RELU": (_ATEN.relu.default, operand),
            "RELU6": (_ATEN.hardtanh.default, operand, 0.0, 6.0),
            "RELU_N1_TO_1": (_ATEN.hardtanh.default, operand, -1.0, 1.0),
            "TANH": (_ATEN.tanh.default, operand),
        }
        if name not in steps:
            raise self.refusal(f"its fused activation {name} has no counterpart", "the activation as its own operator")
        target, *arguments = steps[name]
        result: Operand = self.call(target, *arguments)
        return result

    def requantized(self, operand: Operand, quantization: Quantization | None) -> Operand:
        """Put an intermediate result back on the grid that it came from, so that integer kernels may move it."""
        if quantization is None or isinstance(operand, Tensor):
            return operand
        return self.emit.on_grid(operand, quantization)

    def refusal(self, reason: str, instead: str) -> UnsupportedError:
        """Return the error that names this operator and where it sits."""
        return UnsupportedError(
            f"the TFLite operator {self.info.type} (operator {self.info.index}, {self.label})",
            reason=reason,
            instead=instead,
        )


Translate = Callable[[Call], Value | Sequence[Value]]
"""Translates an operator into the values that it computes."""
