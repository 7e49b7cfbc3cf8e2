"""From a program to an ExecuTorch program: rewrites, partitioning, emission."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import executorch.kernels.quantized  # noqa: F401 - registers the out variants of quantized_decomposed
import torch
from executorch.backends.transforms.utils import create_constant_placeholder
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from executorch.exir.backend.partitioner import Partitioner
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind
from torch.utils._sympy.value_ranges import ValueRanges

from edgekit.formats.executorch.container import INTERFACE_METHOD
from edgekit.formats.executorch.operators import Lowering, collected_reasons, describe_lowering
from edgekit.program.decompositions import decompose
from edgekit.program.edit import ProgramEdit
from edgekit.program.quantization import is_dequantize

LARGEST_BATCH = 64
"""Upper bound of a free batch without one of its own: the runtime plans memory for the largest batch."""

_UNBOUNDED = 2**31 - 1
"""Upper bounds from here on mean that there is none."""

_ATEN = torch.ops.aten
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_WEIGHTED = frozenset(
    {
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
        _ATEN.conv3d.default,
        _ATEN.conv1d.padding,
        _ATEN.conv2d.padding,
        _ATEN.conv3d.padding,
        _ATEN.conv_transpose1d.default,
        _ATEN.conv_transpose2d.input,
        _ATEN.conv_transpose3d.input,
        _ATEN.convolution.default,
        _ATEN.linear.default,
    }
)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program, lowered.

    Attributes:
        data: The bytes of the ``.pte`` file.
        lowering: What is known of its operators besides.
    """

    data: bytes
    lowering: Lowering


def lower(
    program: ExportedProgram,
    backend: str,
    precision: str,
    *,
    interface: str,
    coreml_partitioner: Callable[[], Partitioner],
) -> Lowered:
    """Lower a program.

    Args:
        program: As the pipeline hands it over; it is not changed.
        backend: ``xnnpack``, ``portable`` or ``coreml``.
        precision: Of the artifact.
        interface: Kept in the file as the method ``INTERFACE_METHOD``, which returns it.
        coreml_partitioner: Makes the Core ML partitioner (its library is imported only when it is asked for).
    """
    partitioners: list[Partitioner] = []
    default_reason = "the portable backend delegates nothing"
    if backend == "xnnpack":
        partitioners = _xnnpack_partitioners(precision)
        default_reason = "XNNPACK has no operation {operation}"
    elif backend == "coreml":
        partitioners = [coreml_partitioner()]
        default_reason = "the Core ML partitioner left out {operation}"
    prepared = program if backend == "coreml" else with_shaped_scalars(split_integer_bias(decompose(program)))
    prepared = with_own_constants(bounded_batch(prepared))
    with collected_reasons() as reasons:
        edge = to_edge_transform_and_lower(
            prepared,
            partitioner=partitioners,
            constant_methods={INTERFACE_METHOD: interface},
            compile_config=EdgeCompileConfig(_skip_dim_order=backend == "coreml"),
        )
    executorch_program = edge.to_executorch()
    lowering = describe_lowering(executorch_program, reasons, default_reason)
    return Lowered(bytes(executorch_program.buffer), lowering)


def _xnnpack_partitioners(precision: str) -> list[Partitioner]:
    """Choose what XNNPACK is asked to take.

    ``w8``: with 8-bit weights alone, it takes matrix products only as float ones whose weight comes at run time.
    ``int8-dynamic``: each layer whose input is quantized at run time is a delegate of its own, the operations between
    them are others. In one delegate, the pass of ExecuTorch 1.5.1 that puts channels last follows such an input back
    to the delegate's first value and turns that for everybody: a residual addition then meets its two operands in
    different orders of axes, and the program fails when it is run.
    """
    if precision == "w8":
        return [XnnpackPartitioner(config_precisions=ConfigPrecisionType.FP32)]
    if precision == "int8-dynamic":
        floats = XnnpackPartitioner(config_precisions=ConfigPrecisionType.FP32)
        return [XnnpackDynamicallyQuantizedPartitioner(), floats]
    return [XnnpackPartitioner()]


def split_integer_bias(program: ExportedProgram) -> ExportedProgram:
    """Add the bias of linear layers with folded integer weights and float activations in an operation of its own.

    Their weight is dequantized at run time; XNNPACK 1.5.1 crashes on such a weight with a constant bias.
    """
    edit = ProgramEdit.of(program)
    for node in list(edit.graph.nodes):
        if node.op != "call_function" or node.target is not _ATEN.linear.default or len(node.args) < 3:
            continue
        source, weight, bias = node.args
        if bias is None or not is_dequantize(weight) or is_dequantize(source):
            continue
        with edit.graph.inserting_after(node):
            total = edit.graph.call_function(_ATEN.add.Tensor, (node, bias))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total, delete_user_cb=lambda user, total=total: user is not total)
        node.args = (source, weight)
    return edit.finish()


def with_shaped_scalars(program: ExportedProgram) -> ExportedProgram:
    """Quantize and dequantize scalars as tensors of one element.

    XNNPACK's passes of ExecuTorch 1.5.1 fail with an ``IndexError`` on a quantized tensor without dimensions.
    """
    edit = ProgramEdit.of(program)
    for node in list(edit.graph.nodes):
        if node.op != "call_function" or getattr(node.meta.get("val"), "dim", lambda: 1)() != 0:
            continue
        if node.target is _QUANTIZE:
            with edit.graph.inserting_before(node):
                shaped = edit.graph.call_function(_ATEN.view.default, (node.args[0], [1]))
            shaped.meta["val"] = node.args[0].meta["val"].reshape(1)
            node.replace_input_with(node.args[0], shaped)
            node.meta = {**node.meta, "val": node.meta["val"].reshape(1)}
        elif node.target is _DEQUANTIZE:
            with edit.graph.inserting_after(node):
                scalar = edit.graph.call_function(_ATEN.view.default, (node, []))
            scalar.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(scalar, delete_user_cb=lambda user, scalar=scalar: user is not scalar)
            node.meta = {**node.meta, "val": node.meta["val"].reshape(1)}
    return edit.finish()


def bounded_batch(program: ExportedProgram) -> ExportedProgram:
    """Give free sizes without an upper bound one: ExecuTorch allocates for the largest.

    Without it ExecuTorch takes the size of the example for the largest. The bound has to stand in two places: in the
    program, and in the shape environment that its symbolic sizes share (which ``program`` therefore shares, too).
    """
    unbounded = [symbol for symbol, limits in program.range_constraints.items() if not limits.upper < _UNBOUNDED]
    if not unbounded:
        return program
    bounded = ProgramEdit.of(program).finish()
    for symbol in unbounded:
        limits = ValueRanges(bounded.range_constraints[symbol].lower, LARGEST_BATCH)
        bounded.range_constraints[symbol] = limits
        for size in _symbolic_sizes(bounded):
            size.node.shape_env.var_to_range[symbol] = limits
    return bounded


def _symbolic_sizes(program: ExportedProgram) -> list[torch.SymInt]:
    return [
        size
        for node in program.graph.find_nodes(op="placeholder")
        if isinstance(node.meta.get("val"), torch.Tensor)
        for size in node.meta["val"].shape
        if isinstance(size, torch.SymInt)
    ]


def with_own_constants(program: ExportedProgram) -> ExportedProgram:
    """Give every constant a name of its own that no pass of ExecuTorch confuses with another.

    XNNPACK's passes name the constants that they compute after the module path with ``.`` replaced by ``_``, and take
    an existing constant of that name for the one they want: with modules ``a.1`` and ``a_1``, or a convolution that
    two batch normalizations follow, wrong weights are used without an error. So names become ``c0``, ``c1`` ..., and
    a weight that several convolutions or linear layers read is stored once for each. Each gets plain strides.

    Args:
        program: It is not changed.
    """
    edit = ProgramEdit.of(program)
    named = edit.finish()
    _rename(named)
    for node in named.graph.find_nodes(op="placeholder"):
        held = node.meta.get("val")
        if isinstance(held, torch.Tensor) and node.name not in named.graph_signature.user_inputs:
            node.meta["val"] = _plain(held)
    for index, (node, user) in enumerate(_shared_weights(named)):
        spec = next(spec for spec in named.graph_signature.input_specs if getattr(spec.arg, "name", "") == node.name)
        held = named.state_dict if spec.target in named.state_dict else named.constants
        with named.graph.inserting_before(node):
            clone = create_constant_placeholder(
                exp_program=named,
                graph=named.graph,
                name=f"own{index}",
                kind=spec.kind,
                data=held[spec.target].detach().clone(),
                persistent_buffer=spec.persistent,
            )
        user.replace_input_with(node, clone)
    named.graph_module.recompile()
    return named


def _rename(program: ExportedProgram) -> None:
    signature = program.graph_signature
    names: dict[str, str] = {}
    specs = []
    for spec in signature.input_specs:
        if spec.target is not None and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            spec = copy.copy(spec)
            spec.target = names.setdefault(spec.target, f"c{len(names)}")
        specs.append(spec)
    outputs = [copy.copy(spec) for spec in signature.output_specs]
    for spec in outputs:
        if spec.target is not None:
            spec.target = names.get(spec.target, spec.target)
    program._graph_signature = ExportGraphSignature(specs, outputs)
    program._state_dict = {names.get(name, name): _plain(value) for name, value in program.state_dict.items()}
    program._constants = {names.get(name, name): _plain(value) for name, value in program.constants.items()}


def _plain(value: Any) -> Any:
    """Give a constant the strides of its shape.

    XNNPACK's passes tell by the strides whether channels lie last, and read a constant of one pixel that was permuted
    (or a convolution's weight in ``torch.channels_last``) along another axis: wrong results without an error.
    """
    if not isinstance(value, torch.Tensor) or value.stride() == torch.empty(tuple(value.shape), device="meta").stride():
        return value
    plain = value.detach().clone(memory_format=torch.contiguous_format)
    return torch.nn.Parameter(plain, requires_grad=False) if isinstance(value, torch.nn.Parameter) else plain


def _shared_weights(program: ExportedProgram) -> list[tuple[torch.fx.Node, torch.fx.Node]]:
    """Return (weight, user) of every convolution and linear layer but the first that reads a weight."""
    first: dict[torch.fx.Node, torch.fx.Node] = {}
    shared = []
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target not in _WEIGHTED or not _feeds_batch_norm(node):
            continue
        weight = node.args[1]
        if weight.op == "placeholder" and first.setdefault(weight, node) is not node:
            shared.append((weight, node))
    return shared


def _feeds_batch_norm(node: torch.fx.Node) -> bool:
    return any("batch_norm" in str(user.target) for user in node.users)


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
