"""Writes a torch graph while a ``.tflite`` graph is read: values in two axis orders, constants folded on the way.

TFLite keeps images with channels last, programs with channels first. A value of rank 4 or 5 that comes out of an image
operation is held with its channels first, and operations that do not care take it as it lies; axes are turned only
where a value enters or leaves that world, so that a convolutional net is one piece for a delegate.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.ao.quantization.fx import _decomposed as _registers  # noqa: F401 - quantized_decomposed operators
from torch.fx import Graph, GraphModule, Node

from edgekit.records import Quantization

Operand = Node | Tensor
"""What an operation takes: a computed value, or a constant that is known while reading."""

Layout = Literal["file", "channels-first"]
_SEPARATORS = re.compile(r"[,;()\[\]]")
_ATEN = torch.ops.aten
_OPS = torch.ops.quantized_decomposed
_RANGES = {"int8": (-128, 127), "int16": (-32768, 32767), "int4": (-8, 7)}
_INTEGERS = {"int8": torch.int8, "int16": torch.int16, "int4": torch.int8}


def channels_first(rank: int) -> list[int]:
    """Return the permutation that brings the last axis behind the batch: ``[0, 3, 1, 2]`` for rank 4."""
    return [0, rank - 1, *range(1, rank - 1)]


def channels_last(rank: int) -> list[int]:
    """Return the permutation that undoes :func:`channels_first`."""
    return [0, *range(2, rank), 1]


Pads = tuple[tuple[int, int], ...]
"""Zeros before and after, of each axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocked:
    """A value whose batch is made of blocks of pixels, and what it is without them.

    Attributes:
        block: The size of a block along each axis.
        source: What the blocks were made of.
        pads: Zeros around ``source``, before the blocks were made.
        convolved: Of a convolution of blocks: computes the dilated convolution of ``source`` with such padding.
    """

    block: tuple[int, ...]
    source: Value
    pads: Pads
    convolved: Callable[[Pads], Value] | None = None


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of the file.

    Attributes:
        shape: Its sizes in the file's order of axes.
        dtype: Of the numbers that its operands hold: float32 where it is quantized and computed.
        quantization: Its scales; computed operands of it hold the real numbers on that grid.
        constant: What is known of it while reading, in the file's order, integers where it is quantized.
        operands: What computes it, by axis order; another order is made when it is asked for.
        padded: The value that this one pads with zeros, and by how much on each side of each axis in the file's order.
        blocked: Where its batch is made of blocks of pixels, what computes it without.
        variable: The variable that it is a handle of.
        folded: Whether it is a constant of integers behind a ``DEQUANTIZE``: a layer that takes it as its weight keeps
            the integers (weight-only quantization), everything else sees real numbers.
        make: Computes it at last, for a value that may not be needed (a padding that its convolution takes in).
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    quantization: Quantization | None = None
    constant: Tensor | None = None
    operands: dict[Layout, Node] = field(default_factory=dict)
    padded: tuple[Value, tuple[tuple[int, int], ...]] | None = None
    make: Callable[[], Value] | None = None
    blocked: Blocked | None = None
    variable: tuple[str, str] | None = None
    folded: bool = False

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def real(self) -> Tensor:
        """Return the real numbers that a constant stands for: float32, in the file's order.

        Raises:
            ValueError: It is not known while reading.
        """
        if self.constant is None:
            raise ValueError("it is computed, not a constant")
        if self.quantization is None:
            return self.constant.float()
        shape = [1] * self.rank
        if self.quantization.axis is not None:
            shape[self.quantization.axis] = len(self.quantization.scale)
        scales = torch.tensor(self.quantization.scale, dtype=torch.float64).reshape(shape if self.rank else ())
        points = torch.tensor(self.quantization.zero_point).reshape(shape if self.rank else ())
        return ((self.constant.double() - points) * scales).float()

    def with_constant(self, constant: Tensor, quantization: Quantization | Literal["same"] | None = "same") -> Value:
        """Return a constant that stands for numbers on the same grid, or on another."""
        grid = self.quantization if quantization == "same" else quantization
        return Value(tuple(constant.shape), self.dtype, grid, constant=constant, folded=self.folded)

    def as_folded(self) -> Value:
        """Return a quantized constant as a ``DEQUANTIZE`` hands it on."""
        return Value(self.shape, torch.float32, self.quantization, constant=self.constant, folded=True)

    @property
    def layout(self) -> Layout:
        """The order of axes in which it lies already."""
        if self.make is not None:
            materialized = self.make()
            self.operands, self.make = dict(materialized.operands), None
        return "channels-first" if "channels-first" in self.operands else "file"


class Emitter:
    """Holds the graph that is being written.

    Args:
        free_batch: Whether the program must take any batch size.
    """

    def __init__(self, *, free_batch: bool) -> None:
        self.graph = Graph()
        self.root = nn.Module()
        self.free_batch = free_batch
        self._mode = FakeTensorMode()
        self._label = ("", "")
        self._held: dict[tuple[Any, ...], str] = {}
        self.variables: dict[tuple[str, str], Value] = {}
        self.initialising = False
        self.notes: list[str] = []

    def label(self, path: str, kind: str) -> None:
        """Say which layer the operations that follow belong to.

        Brackets, commas and semicolons are what programs separate layers by when they are written to a file.
        """
        self._label = (_SEPARATORS.sub("_", path), kind)

    def placeholder(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Node:
        """Add an input of the program."""
        node = self.graph.placeholder(name)
        with self._mode:
            node.meta["val"] = torch.empty(tuple(shape), dtype=dtype)
        return node

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Add an operation, or compute it at once where all its operands are constants.

        Returns:
            A node, a tensor, or a tuple of them for operations with several results.
        """
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        if not any(isinstance(leaf, Node) for leaf in flat):
            with torch.no_grad():
                return target(*args, **kwargs)
        args, kwargs = torch.utils._pytree.tree_map_only(Tensor, self.held, (args, kwargs))
        node = self.graph.call_function(target, args, kwargs)
        values = torch.utils._pytree.tree_map_only(Node, lambda item: item.meta["val"], (args, kwargs))
        with self._mode:
            node.meta["val"] = target(*values[0], **values[1])
        self._mark(node)
        return node

    def held(self, tensor: Tensor, name: str = "constant", grid: Quantization | None = None) -> Node:
        """Give the program a constant and return the node that reads it.

        The steps of an unrolled layer share their constants. Others do not, equal as they may be: XNNPACK keeps one
        scale for each constant, so the same integers on two grids would be read on one of them.

        Args:
            tensor: The numbers, or integers.
            name: What to call it.
            grid: What integers stand for.
        """
        # A copy, because a turned tensor with sizes of 1 counts as contiguous with the strides of channels-last ones,
        # and ExecuTorch's XNNPACK lowering then takes its channels for another axis.
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        key = (self._label, name, grid, tensor.dtype, tuple(tensor.shape), hashlib.sha256(content).digest())
        if key not in self._held:
            self._held[key] = f"{name.replace('.', '_')}_{len(self._held)}"
            self.root.register_buffer(self._held[key], tensor)
        attribute = self._held[key]
        node = self.graph.create_node("get_attr", attribute)
        node.meta["val"] = self._mode.from_tensor(tensor, static_shapes=True)
        self._mark(node)
        return node

    def _mark(self, node: Node) -> None:
        path, kind = self._label
        node.meta["nn_module_stack"] = {path: (path, kind)} if path else {}

    def finish(self, outputs: Sequence[Operand]) -> GraphModule:
        """End the graph; a dequantize operation is given to each of its users separately, as exporters expect it."""
        self.graph.output(tuple(self.held(item) if isinstance(item, Tensor) else item for item in outputs))
        module = GraphModule(self.root, self.graph)
        _one_dequantize_each(module)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return module

    # --- values -----------------------------------------------------------------------------------------------------

    def value(self, operand: Operand, layout: Layout = "file", quantization: Quantization | None = None) -> Value:
        """Make a value of what an operation returned, on its grid where it is quantized.

        Args:
            operand: Real numbers (or integers that are not quantized).
            layout: The order of its axes.
            quantization: Of the file's tensor; None where it holds plain numbers.
        """
        if isinstance(operand, Tensor):
            if quantization is not None:
                operand = self.held(operand)
            else:
                plain = operand.permute(channels_last(operand.dim())) if layout == "channels-first" else operand
                return Value(tuple(plain.shape), plain.dtype, constant=plain)
        if quantization is not None:
            operand = self.on_grid(operand, quantization)
        sizes = list(operand.meta["val"].shape)
        if layout == "channels-first":
            sizes = [sizes[axis] for axis in channels_last(len(sizes))]
        shape = tuple(int(size) for size in sizes)
        return Value(shape, operand.meta["val"].dtype, quantization, operands={layout: operand})

    def on_grid(self, operand: Node, quantization: Quantization) -> Node:
        """Quantize and dequantize: ``s * (clamp(round(x / s) + z) - z)`` (Jacob et al. 2018, eq. 1)."""
        low, high = _RANGES[quantization.dtype]
        dtype = _INTEGERS[quantization.dtype]
        arguments = (quantization.scale[0], quantization.zero_point[0], low, high, dtype)
        if operand.target is _OPS.dequantize_per_tensor.default and operand.args[1:] == arguments:
            return operand
        integers = self.call(_OPS.quantize_per_tensor.default, operand, *arguments)
        node: Node = self.call(_OPS.dequantize_per_tensor.default, integers, *arguments)
        return node

    def integers(self, numbers: Tensor, quantization: Quantization) -> Tensor:
        """Return the integers that constant real numbers become on a grid."""
        low, high = _RANGES[quantization.dtype]
        arguments = (quantization.scale[0], quantization.zero_point[0], low, high, _INTEGERS[quantization.dtype])
        found: Tensor = _OPS.quantize_per_tensor.default(numbers, *arguments)
        return found

    def dequantized(self, integers: Tensor, quantization: Quantization, name: str, axis: int | None = None) -> Node:
        """Hold integers as a constant and return the real numbers that they stand for.

        Args:
            integers: In any order of axes.
            quantization: Of the file's tensor.
            name: What to call the constant.
            axis: Of the channels in ``integers``, where there is a scale for each.
        """
        low, high = _RANGES[quantization.dtype]
        constant = self.held(integers, name, quantization)
        dtype = _INTEGERS[quantization.dtype]
        if len(quantization.scale) == 1:
            arguments = (quantization.scale[0], quantization.zero_point[0], low, high, dtype)
            node: Node = self.call(_OPS.dequantize_per_tensor.default, constant, *arguments)
            return node
        scales = self.held(torch.tensor(quantization.scale, dtype=torch.float32), f"{name}_scale")
        points = self.held(torch.tensor(quantization.zero_point, dtype=torch.int64), f"{name}_zero_point")
        low = low + 1 if bool((integers > low).all()) else low
        return self.call(  # type: ignore[no-any-return]
            _OPS.dequantize_per_channel.default, constant, scales, points, axis, low, high, dtype
        )

    def ones(self, shape: Sequence[int], *, quantized: bool) -> Operand:
        """Make ones, as an exact product of integers and their step where integer kernels multiply with them."""
        if not quantized:
            return self.held(torch.ones(tuple(shape)), "ones")
        grid = Quantization(scale=(1.0,), zero_point=(0,))
        return self.dequantized(torch.ones(tuple(shape), dtype=torch.int8), grid, "ones")

    def operand(self, value: Value, layout: Layout = "file") -> Operand:
        """Return a value in an order of axes, turning it where it lies in the other one."""
        if value.constant is not None:
            return self._constant_operand(value, layout)
        held = value.layout  # also computes a value that was put off
        if layout in value.operands:
            return value.operands[layout]
        order = channels_first(value.rank) if layout == "channels-first" else channels_last(value.rank)
        source = value.operands[held]
        turned = self._turn(source, order)
        if value.quantization is not None:
            turned = self.on_grid(turned, value.quantization)
        value.operands[layout] = turned
        return turned

    def _constant_operand(self, value: Value, layout: Layout) -> Operand:
        constant = value.real() if value.folded else value.constant
        if constant is None:
            raise ValueError("only constants are asked for here")
        if layout == "channels-first":
            constant = constant.permute(channels_first(constant.dim())).contiguous()
        if value.quantization is None or value.folded:
            return constant
        axis = value.quantization.axis
        if axis is not None and layout == "channels-first":
            axis = channels_first(constant.dim()).index(axis)
        return self.dequantized(constant, value.quantization, "constant", axis)

    def _turn(self, source: Node, order: list[int]) -> Node:
        """Permute; where only axes of size 1 change places, a reshape says the same and moves nothing."""
        sizes = source.meta["val"].shape
        moved = [axis for axis in order if sizes[axis] != 1]
        if moved == sorted(moved):
            node: Node = self.call(_ATEN.reshape.default, source, self.free([int(sizes[axis]) for axis in order]))
        else:
            node = self.call(_ATEN.permute.default, source, order)
        return node

    def as_it_lies(self, value: Value) -> tuple[Operand, Layout]:
        """Return a value in the order of axes in which it lies already, and that order."""
        layout: Layout = "file" if value.constant is not None else value.layout
        return self.operand(value, layout), layout

    def flat(self, value: Value) -> Operand:
        """Return a value in any order of axes whose elements lie in the file's order: what a reshape may take."""
        if value.constant is None and value.layout == "channels-first" and "file" not in value.operands:
            sizes = value.operands["channels-first"].meta["val"].shape
            moved = [axis for axis in channels_last(value.rank) if sizes[axis] != 1]
            if moved == sorted(moved):
                return value.operands["channels-first"]
        return self.operand(value)

    def free(self, sizes: Sequence[int]) -> list[int]:
        """Return sizes for a reshape in which axis 0 is inferred, where the program must take any batch.

        Files count the batch, alone or times other axes, in axis 0.
        """
        sizes = [int(size) for size in sizes]
        if self.free_batch and sizes and -1 not in sizes and 0 not in sizes[1:]:
            return [-1, *sizes[1:]]
        return sizes

    def repeated(self, value: Value, like: Operand) -> Value:
        """Repeat a value of batch 1 as often as another one has samples."""
        batch = self.call(_ATEN.sym_size.int, like, 0)
        operand = self.operand(value)
        wide = self.call(_ATEN.expand.default, operand, [batch, *value.shape[1:]])
        return self.value(wide, "file", value.quantization)

    def aligned(self, values: Sequence[Value]) -> tuple[list[Operand], Layout]:
        """Return the operands of an elementwise operation in one order of axes, ranks made equal by leading ones."""
        rank = max(value.rank for value in values)
        computed = [value for value in values if value.constant is None]
        first = any(value.rank == rank and value.layout == "channels-first" for value in computed)
        if not first:
            return [self.operand(value) for value in values], "file"
        return [self._expanded(value, rank) for value in values], "channels-first"

    def _expanded(self, value: Value, rank: int) -> Operand:
        if value.rank == rank:
            return self.operand(value, "channels-first")
        sizes = [1] * (rank - value.rank) + list(value.shape)
        if value.constant is not None:
            wide = Value(
                tuple(sizes), value.dtype, _moved_axis(value.quantization, rank - value.rank),
                constant=value.constant.reshape(sizes),
            )  # fmt: skip
            return self.operand(wide, "channels-first")
        wide_node = self.call(_ATEN.reshape.default, self.operand(value), sizes)
        if value.quantization is not None:
            wide_node = self.on_grid(wide_node, value.quantization)
        wide = Value(tuple(sizes), value.dtype, value.quantization, operands={"file": wide_node})
        return self.operand(wide, "channels-first")


def _moved_axis(quantization: Quantization | None, by: int) -> Quantization | None:
    if quantization is None or quantization.axis is None:
        return quantization
    return Quantization(
        scale=quantization.scale,
        zero_point=quantization.zero_point,
        axis=quantization.axis + by,
        dtype=quantization.dtype,
    )


def _one_dequantize_each(module: GraphModule) -> None:
    """Give every user of a dequantized value a dequantize operation of its own (what PT2E's graphs look like)."""
    for node in list(module.graph.nodes):
        if node.target is not _OPS.dequantize_per_tensor.default:
            continue
        for user in list(node.users)[1:]:
            with module.graph.inserting_before(user):
                own = module.graph.call_function(node.target, node.args)
            own.meta = dict(node.meta)
            user.replace_input_with(node, own)
