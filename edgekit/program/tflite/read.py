"""Turn a ``.tflite`` file into a program: operators, weights and scales as the file has them, channels first inside.

This is the road of every Keras model: TensorFlow's own converter writes the file, whose learned scales become the
quantize and dequantize operations of the program. It was chosen over rebuilding the model layer by layer because it
serves every version of Keras, SavedModels and files whose model is lost alike, and because the integers of the file
are the integers of every other format, whichever library trained them.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.program.tflite import flatbuffer
from edgekit.program.tflite.call import Call
from edgekit.program.tflite.emitter import Emitter, Value
from edgekit.program.tflite.graph import GraphInfo, OperatorInfo, TensorInfo, decode
from edgekit.program.tflite.names import layer_names
from edgekit.program.tflite.operators import OPERATORS
from edgekit.program.tflite.operators.versions import newest
from edgekit.records import TensorSpec

MAX_BATCH = 1024
_LARGEST_INPUT = 2**28
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch and plain lookups raise where a file says things that do not fit together."""


@dataclass(frozen=True, slots=True)
class ReadProgram:
    """A program, and its interface as the file names it.

    Attributes:
        program: Takes and returns real numbers (float32) also where the file has quantized inputs and outputs, whose
            quantization is its first and last operation.
        graph: The same before it was exported, for running.
        inputs, outputs: In the file's order.
        notes: What was changed on the way, for the report.
    """

    program: ExportedProgram
    graph: GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()


def read_program(path: Path, *, dynamic_batch: bool = False) -> ReadProgram:
    """Read a file.

    Args:
        path: The ``.tflite`` file, checked before anything is made of it.
        dynamic_batch: Whether the program must take any batch size.

    Raises:
        ArtifactError: The file is missing, truncated or damaged.
        UnsupportedError: An operator that programs cannot hold, named with the place where it sits.
    """
    model = flatbuffer.read_model(path)
    place = _Place()
    try:
        graphs = decode(model)
        _check_operators(graphs)
        emit = Emitter(free_batch=dynamic_batch)
        graph = _read(graphs, emit, place, flatbuffer.model_inputs(model))
    except _DAMAGE as error:
        raise ArtifactError(
            f"{str(path)!r} is damaged{place}: its operators and tensors do not fit together "
            f"({type(error).__name__}: {_first_line(error)}). Export it again"
        ) from error
    main = graphs[0]
    program = _export(graph, [main.tensors[index] for index in main.inputs], dynamic_batch=dynamic_batch)
    return ReadProgram(
        program=program,
        graph=graph,
        inputs=tuple(_real(spec, dynamic_batch) for spec in flatbuffer.model_inputs(model)),
        outputs=tuple(_real(spec, dynamic_batch) for spec in flatbuffer.model_outputs(model)),
        notes=tuple(emit.notes),
    )


@dataclass(slots=True)
class _Place:
    """Where reading has got to, for the message about a damaged file."""

    text: str = ""

    def __str__(self) -> str:
        return f" at {self.text}" if self.text else ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _read(graphs: Sequence[GraphInfo], emit: Emitter, place: _Place, specs: Sequence[TensorSpec]) -> GraphModule:
    main = graphs[0]
    names = argument_names([spec.name for spec in specs])
    values = [_input(emit, main.tensors[index], name) for index, name in zip(main.inputs, names, strict=True)]
    results = _Reader(graphs, emit, place).run(0, values)
    return emit.finish([emit.operand(value) for value in results])


def _check_operators(graphs: Sequence[GraphInfo]) -> None:
    """Name every operator that cannot be read at once, not the first only."""
    unknown: dict[str, str] = {}
    for graph in graphs:
        for operator in graph.operators:
            if operator.type not in OPERATORS:
                unknown.setdefault(operator.type, _place(graph, operator))
            elif operator.version > newest(operator.type):
                name = f"{operator.type} of version {operator.version}, known up to {newest(operator.type)}"
                unknown.setdefault(name, _place(graph, operator))
    if unknown:
        listed = ", ".join(f"{name} (at {place})" for name, place in unknown.items())
        raise UnsupportedError(
            f"the TFLite operators {listed}",
            reason="there is no translation of them into a program",
            instead="the TFLite format alone, or a model without them",
        )


def _place(graph: GraphInfo, operator: OperatorInfo) -> str:
    outputs = [graph.tensors[index].name for index in operator.outputs if index >= 0]
    return repr(outputs[0]) if outputs else f"operator {operator.index}"


def argument_names(names: Sequence[str]) -> tuple[str, ...]:
    """Name the program's arguments as the file's inputs, as far as Python allows: formats show these names to users."""
    found: list[str] = []
    for position, name in enumerate(names):
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        allowed = word.isidentifier() and not keyword.iskeyword(word) and not hasattr(builtins, word)
        word = word if allowed else f"input_{position}"
        found.append(word if word not in found else f"{word}_{position}")
    return tuple(found)


def _input(emit: Emitter, info: TensorInfo, name: str) -> Value:
    if math.prod(info.shape) > _LARGEST_INPUT:
        raise ValueError(f"the input {info.name!r} has the shape {list(info.shape)}")
    quantized = info.quantization is not None
    node = emit.placeholder(name, info.shape, torch.float32 if quantized else info.dtype)
    return emit.value(node, "file", info.quantization)


def _real(spec: TensorSpec, dynamic_batch: bool) -> TensorSpec:
    shape = (None, *spec.shape[1:]) if dynamic_batch and spec.shape else tuple(size or 1 for size in spec.shape)
    dtype = "float32" if spec.quantization is not None else spec.dtype
    return TensorSpec(name=spec.name, dtype=dtype, shape=shape)


def _export(graph: GraphModule, inputs: Iterable[TensorInfo], *, dynamic_batch: bool) -> ExportedProgram:
    examples, shapes = [], []
    for info in inputs:
        sizes = list(info.shape)
        if dynamic_batch and sizes:
            sizes[0] = 2  # a size of 1 would be taken for a constant
        dtype = torch.float32 if info.quantization is not None else info.dtype
        examples.append(torch.zeros(sizes, dtype=dtype))
        shapes.append({0: Dim("batch", min=1, max=MAX_BATCH)} if sizes else None)
    with torch.no_grad():
        if not dynamic_batch:
            return torch.export.export(graph, tuple(examples))
        try:
            _check_batch(graph, examples)
            return torch.export.export(graph, tuple(examples), dynamic_shapes=tuple(shapes))
        except _DAMAGE as error:
            raise UnsupportedError(
                "a free batch in a program from this TFLite file",
                reason=f"the file mixes samples with other axes, or was written for one sample ({_first_line(error)})",
                instead="a fixed batch, or a file converted with a free batch",
            ) from error


def _check_batch(graph: GraphModule, examples: Sequence[torch.Tensor]) -> None:
    """Compare two samples in one batch with the same two one by one: sizes alone do not show that samples mix.

    Raises:
        ValueError: They differ.
    """
    generator = torch.Generator().manual_seed(0)
    samples = [
        torch.randn(example.shape, generator=generator) if example.is_floating_point() else example
        for example in examples
    ]
    together = graph(*samples)
    for number in range(2):
        alone = graph(*(sample[number : number + 1] if sample.dim() else sample for sample in samples))
        for whole, single in zip(together, alone, strict=True):
            if whole.shape[:1] != (2,) or not torch.allclose(
                whole[number : number + 1].double(), single.double(), rtol=1e-3, atol=_largest(single) * 0.05
            ):
                raise ValueError("two samples in one batch give other results than one by one")


def _largest(values: torch.Tensor) -> float:
    return float(values.double().abs().max()) if values.numel() else 0.0


class _Reader:
    """Reads the graphs of one file into one program."""

    def __init__(self, graphs: Sequence[GraphInfo], emit: Emitter, place: _Place) -> None:
        self._graphs = graphs
        self._place = place
        self._emit = emit
        self._names = layer_names(graphs)

    def run(self, number: int, inputs: Sequence[Value]) -> list[Value]:
        """Read one graph with its inputs given; control flow comes back here."""
        graph = self._graphs[number]
        values: dict[int, Value] = dict(zip(graph.inputs, inputs, strict=True))
        for info in graph.tensors:
            if info.constant is not None and info.index not in values:
                values[info.index] = _constant(info)
        for operator in graph.operators:
            self._translate(number, graph, operator, values)
        return [values[index] for index in graph.outputs]

    def _translate(self, number: int, graph: GraphInfo, operator: OperatorInfo, values: dict[int, Value]) -> None:
        label = self._names[number][operator.index]
        self._emit.label(label, operator.type)
        self._place.text = f"operator {operator.index} ({operator.type}, {label or _place(graph, operator)})"
        call = Call(
            info=operator,
            inputs=tuple(_operand(graph, values, index) for index in operator.inputs),
            outputs=tuple(graph.tensors[index] for index in operator.outputs),
            emit=self._emit,
            label=label or _place(graph, operator),
            run_graph=self.run,
        )
        made: Any = OPERATORS[operator.type](call)
        results = [made] if isinstance(made, Value) else list(made)
        values.update(zip(operator.outputs, results, strict=True))


def _operand(graph: GraphInfo, values: dict[int, Value], index: int) -> Value | None:
    if index < 0:
        return None
    if index not in values and graph.tensors[index].variable:
        return _initial_state(graph.tensors[index])
    return values[index]


def _initial_state(info: TensorInfo) -> Value:
    """State that a file keeps between runs starts at zero: a program has none, every run is the first."""
    fill = 0 if info.quantization is None else info.quantization.zero_point[0]
    constant = torch.full(info.shape, fill, dtype=info.dtype)
    return Value(info.shape, info.dtype, info.quantization, constant=constant)


def _constant(info: TensorInfo) -> Value:
    return Value(info.shape, info.dtype, info.quantization, constant=info.constant)
