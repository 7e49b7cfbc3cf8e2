"""The operators of a ``.pte`` file, as its runtime executes them, and why XNNPACK left some out."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from executorch.exir import schema
from executorch.exir.backend.utils import WhyNoPartition
from executorch.exir.scalar_type import ScalarType

from edgekit.formats.executorch.container import XNNPACK, PteFile, read_xnnpack_payload
from edgekit.formats.executorch.xnnpack_graph import Constant, Kind, read_nodes
from edgekit.records import Operator

DTYPES: dict[ScalarType, str] = {
    ScalarType.BYTE: "uint8",
    ScalarType.CHAR: "int8",
    ScalarType.SHORT: "int16",
    ScalarType.INT: "int32",
    ScalarType.LONG: "int64",
    ScalarType.HALF: "float16",
    ScalarType.FLOAT: "float32",
    ScalarType.DOUBLE: "float64",
    ScalarType.BOOL: "bool",
    ScalarType.BFLOAT16: "bfloat16",
}
_ITEM_BYTES = {"uint8": 1, "int8": 1, "bool": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int64": 8, "float64": 8}
# fmt: off
_LAYOUT = frozenset({
    "_clone_dim_order", "_to_dim_order", "alias", "arange", "as_strided", "cat", "clone", "constant_pad_nd",
    "detach", "empty", "et_view", "expand", "flip", "full", "full_like", "lift_fresh", "narrow", "ones", "permute",
    "pixel_shuffle", "repeat_interleave", "scalar_tensor", "select", "slice", "split", "split_with_sizes",
    "squeeze", "stack", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "zeros",
})
# fmt: on
"""Operations that move or create values without computing any."""
NOT_ASKED = "no reason is kept in the file"


@dataclass(frozen=True, slots=True)
class Executed:
    """What the exporter knows of one instruction.

    Attributes:
        layer: Path of the layer in the source model, empty where there is none.
        reason: Why the partitioner left the operation out; None for delegates.
        inner: Of a delegate: debug handle -> layer of the operations inside.
    """

    layer: str = ""
    reason: str | None = None
    inner: Mapping[int, str] = field(default_factory=dict)


_UNKNOWN = Executed(reason=NOT_ASKED)
Lowering = Mapping[int, Executed]
"""Instruction -> what is known of it while it is lowered, and lost in the file."""


def read_operators(file: PteFile, lowering: Lowering | None = None) -> tuple[Operator, ...]:
    """List the operators of a file in execution order, those inside XNNPACK graphs one by one.

    Args:
        file: The file.
        lowering: What the exporter knows besides.
    """
    found: list[Operator] = []
    unpacked: dict[int, Constant] = {}
    for position, instruction in enumerate(file.plan.chains[0].instructions):
        call = instruction.instr_args
        known = (lowering or {}).get(position, _UNKNOWN)
        if isinstance(call, schema.KernelCall):
            found.append(_kernel(file.plan, call, known, unpacked))
        elif isinstance(call, schema.DelegateCall):
            found.extend(_delegate(file, call, known, unpacked))
    return _numbered(found)


def _numbered(operators: list[Operator]) -> tuple[Operator, ...]:
    totals = Counter(operator.name for operator in operators)
    seen: Counter[str] = Counter()
    numbered = []
    for index, operator in enumerate(operators):
        name = operator.name
        if totals[name] > 1:
            seen[name] += 1
            name = f"{name}#{seen[name]}"
        numbered.append(replace(operator, index=index, name=name))
    return tuple(numbered)


def _delegate(
    file: PteFile, call: schema.DelegateCall, known: Executed, unpacked: Mapping[int, Constant]
) -> Iterator[Operator]:
    index = call.delegate_index
    delegate = file.plan.delegates[index]
    if delegate.id != XNNPACK:
        size = len(file.payloads[index])
        yield Operator(
            index=0, name=delegate.id, type=delegate.id, delegated=True, compute_dtype="unknown", weight_bytes=size
        )
        return
    external = {place: unpacked[value] for place, value in enumerate(call.args) if value in unpacked}
    for node in read_nodes(read_xnnpack_payload(file.payloads[index]), file.delegate_constants, external):
        layer = known.inner.get(node.handle) if node.handle is not None else None
        yield Operator(
            index=0,
            name=f"{layer}/{node.type}" if layer else node.type,
            type=node.type,
            delegated=True,
            compute_dtype=node.compute_dtype,
            macs=node.macs,
            weight_bytes=node.weight_bytes,
            weight_dtype=node.weight_dtype,
            kind=node.kind,
        )


def _kernel(plan: Any, call: schema.KernelCall, known: Executed, unpacked: dict[int, Constant]) -> Operator:
    """Describe a kernel. Weights that a kernel dequantizes count for the operation that computes with them."""
    declared = plan.operators[call.op_index]
    short = base_name(declared.name)
    values = [plan.values[index].val for index in call.args]
    kind = _kernel_kind(short)
    constants = [
        Constant(DTYPES.get(value.scalar_type, "unknown"), _tensor_bytes(value))
        for value in values
        if isinstance(value, schema.Tensor) and value.data_buffer_idx
    ]
    if kind == "dequantize" and constants:
        unpacked[call.args[-1]] = Constant(constants[0].dtype, sum(constant.size_bytes for constant in constants))
        constants = []
    constants += [unpacked[index] for index in call.args[:-1] if index in unpacked]
    largest = max(constants, key=lambda constant: constant.size_bytes, default=None)
    return Operator(
        index=0,
        name=f"{known.layer}/{short}" if known.layer else short,
        type=f"{declared.name}.{declared.overload}" if declared.overload else declared.name,
        delegated=False,
        reason=known.reason,
        compute_dtype="none" if kind == "layout" else _kernel_dtype(values),
        macs=_kernel_macs(short, values),
        weight_bytes=sum(constant.size_bytes for constant in constants),
        weight_dtype=largest.dtype if largest is not None else None,
        kind=kind,
    )


def base_name(name: str) -> str:
    """Return the bare name of an operation: ``aten::view_copy`` and ``aten.view_copy.default`` become ``view``."""
    parts = name.replace("::", ".").split(".")
    return (parts[1] if len(parts) > 1 else parts[0]).removesuffix("_copy")


def _kernel_kind(short: str) -> Kind:
    if short in _LAYOUT:
        return "layout"
    if short.startswith("quantize_per") or short.startswith("choose_qparams"):
        return "quantize"
    return "dequantize" if short.startswith("dequantize_per") else "compute"


def _tensors(values: list[Any]) -> list[schema.Tensor]:
    return [value for value in values if isinstance(value, schema.Tensor)]


def _kernel_dtype(values: list[Any]) -> str:
    """The widest kind among the operands: a comparison of floats computes in floats although it returns bool."""
    dtypes = [DTYPES.get(tensor.scalar_type, "unknown") for tensor in _tensors(values)]
    return next((dtype for dtype in dtypes if "float" in dtype), dtypes[-1] if dtypes else "none")


def _numel(tensor: schema.Tensor) -> int:
    return math.prod(tensor.sizes)


def _tensor_bytes(tensor: schema.Tensor) -> int:
    return _numel(tensor) * _ITEM_BYTES.get(DTYPES.get(tensor.scalar_type, ""), 4)


def _kernel_macs(short: str, values: list[Any]) -> int:
    tensors = _tensors(values)
    if len(tensors) < 3:
        return 0
    output = _numel(tensors[-1])
    if short in ("mm", "bmm", "linear"):
        return output * int(tensors[0].sizes[-1])
    if short == "addmm":
        return output * int(tensors[1].sizes[-1])
    if short == "convolution":
        source, weight = tensors[:2]
        transposed = isinstance(values[6], schema.Bool) and values[6].bool_val
        return (_numel(source) if transposed else output) * _numel(weight) // int(weight.sizes[0])
    return 0


class _Reasons(logging.Handler):
    """Collects what ``WhyNoPartition`` logs: the record's message is the object itself, with node and reason."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        why = record.msg
        if isinstance(why, WhyNoPartition) and why.node is not None:
            self.found.setdefault(why.node.name, why.reason)


@contextmanager
def collected_reasons() -> Iterator[dict[str, str]]:
    """Collect, while the block runs, why XNNPACK's partitioner leaves nodes out: node name -> reason."""
    logger = logging.getLogger("executorch.backends.xnnpack.partition.config")
    level, propagate = logger.level, logger.propagate
    handler = _Reasons()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def describe_lowering(executorch: Any, reasons: Mapping[str, str], default_reason: str) -> Lowering:
    """Put together what the exporter knows of the operators.

    Args:
        executorch: ``ExecutorchProgramManager``.
        reasons: Node name -> why the partitioner left it out.
        default_reason: For the others; ``{operation}`` stands for the operation.
    """
    plan = executorch.executorch_program.execution_plan[0]
    module = executorch.exported_program().graph_module
    nodes = iter([node for node in module.graph.nodes if node.op == "call_function"])
    known: dict[int, Executed] = {}
    for position, instruction in enumerate(plan.chains[0].instructions):
        call = instruction.instr_args
        if isinstance(call, schema.DelegateCall):
            node = _next(nodes, _DELEGATE_CALL)
            if node is not None:
                known[position] = Executed(inner=_inner_layers(getattr(module, node.args[0].target)))
        elif isinstance(call, schema.KernelCall):
            operation = base_name(plan.operators[call.op_index].name)
            node = _next(nodes, operation)
            if node is not None:
                reason = reasons.get(node.name, default_reason.format(operation=operation))
                known[position] = Executed(layer=_layer(node), reason=reason)
    return known


_DELEGATE_CALL = "executorch_call_delegate"


def _next(nodes: Iterator[Any], operation: str) -> Any:
    """Advance to the next node of an operation: memory planning's nodes in between become no instruction."""
    for node in nodes:
        target = node.target
        name = base_name(target.name()) if hasattr(target, "name") and callable(target.name) else str(target)
        if operation in (name, getattr(target, "__name__", "")):
            return node
    return None


def _inner_layers(lowered: Any) -> dict[int, str]:
    layers: dict[int, str] = {}
    for node in lowered.original_module.graph.nodes:
        handle = node.meta.get("debug_handle")
        if isinstance(handle, int) and _layer(node):
            layers.setdefault(handle, _layer(node))
    return layers


def _layer(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""
