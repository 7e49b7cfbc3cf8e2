"""The operations of an ML program, as records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.records import Operator

_BITS = {
    "float32": 32, "float16": 16, "float64": 64, "int32": 32, "uint32": 32, "int16": 16, "uint16": 16, "int8": 8,
    "uint8": 8, "bool": 8, "int4": 4, "uint4": 4, "uint6": 6, "uint3": 3, "uint2": 2, "uint1": 1, "int64": 64,
}  # fmt: skip
_LAYOUT = frozenset(
    {
        *("transpose", "reshape", "expand_dims", "squeeze", "concat", "split", "slice_by_index", "slice_by_size"),
        *("stack", "cast", "identity", "shape", "fill", "fill_like", "pad", "tile", "range_1d", "reverse"),
    }
)
_MASKS = frozenset({"mask", "data_mask", "indices_mask", "shape"})
"""Parameters of ``constexpr_*`` operations that say where values stand."""
INPUT_GRID = "input_grid"
"""Names of the operations that round a quantized input to its grid in float32 start with it."""
Kind = Literal["compute", "quantize", "dequantize", "layout"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A value of the program.

    Attributes:
        dtype: numpy's name, or ``int4``, ``uint4`` and the like.
        shape: Sizes; None where free.
        constant_bytes: Of a constant: what it takes in the file; 0 otherwise.
        stored_dtype: Of a constant: how it is stored; None of what is computed.
    """

    dtype: str
    shape: tuple[int | None, ...]
    constant_bytes: int = 0
    stored_dtype: str | None = None


def read_operators(specification: Any, function_name: str | None = None) -> tuple[Operator, ...]:
    """List the operations of a function in execution order, constants folded into those that read them.

    Args:
        specification: ``Model_pb2.Model``.
        function_name: None: the one that runs unless another is named.
    """
    function = specification.mlProgram.functions[function_name or default_function(specification)]
    block = function.block_specializations[function.opset]
    known = {item.name: read_type(item.type) for item in function.inputs}
    operations = list(_executed(block, known))
    integer = _integer_operations(operations, known)
    return tuple(
        Operator(
            index=index,
            name=operation.outputs[0].name if operation.outputs else f"{operation.type}_{index}",
            type=operation.type,
            delegated=True,
            compute_dtype="int8" if index in integer else _compute_dtype(operation, known),
            macs=_macs(operation, known),
            weight_bytes=sum(value.constant_bytes for value in _arguments(operation, known).values()),
            weight_dtype=_weight_dtype(operation, known),
            kind=_kind(operation.type, name=operation.outputs[0].name if operation.outputs else ""),
        )
        for index, operation in enumerate(operations)
    )


def default_function(specification: Any) -> str:
    """Return the name of the function that runs unless another is named."""
    functions = specification.mlProgram.functions
    named = specification.description.defaultFunctionName or "main"
    return named if named in functions else next(iter(sorted(functions)), named)


def element_bits(dtype: str) -> int:
    """Return how many bits an element of a declared dtype takes; 0 where it has no fixed size (strings)."""
    return _BITS.get(dtype, 0)


def _integer_operations(operations: list[Any], known: dict[str, Variable]) -> set[int]:
    """Return the operations that lie between a dequantize and a quantize: Core ML computes those in integers.

    An operation counts when everything it reads comes out of dequantize operations (directly, or through others that
    count) or is constant, and everything that reads it is a quantize operation or counts itself.
    """
    from_integers: set[str] = set()
    candidates: dict[int, Any] = {}
    readers: dict[str, list[int]] = {}
    for index, operation in enumerate(operations):
        read = _read_names(operation, known)
        for name in read:
            readers.setdefault(name, []).append(index)
        is_candidate = bool(read) and from_integers.issuperset(read) and _kind(operation.type) == "compute"
        if is_candidate:
            candidates[index] = operation
        if is_candidate or operation.type == "dequantize":
            from_integers.update(output.name for output in operation.outputs)
    confirmed: set[int] = set()
    for index, operation in reversed(candidates.items()):
        followers = [reader for output in operation.outputs for reader in readers.get(output.name, [])]
        if followers and all(operations[reader].type == "quantize" or reader in confirmed for reader in followers):
            confirmed.add(index)
    return confirmed


def _read_names(operation: Any, known: dict[str, Variable]) -> list[str]:
    """Names of the values that an operation reads and that are no constants."""
    names = [binding.name for argument in operation.inputs.values() for binding in argument.arguments if binding.name]
    return [name for name in names if name in known and not known[name].stored_dtype]


def read_type(value_type: Any) -> Variable:
    """Read the type of a value."""
    if value_type.WhichOneof("type") != "tensorType":
        return Variable("unknown", ())
    tensor = value_type.tensorType
    shape = tuple(
        dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor.dimensions
    )
    names = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    known = names.get(tensor.dataType)
    return Variable(known.name.lower() if known is not None else f"type {tensor.dataType}", shape)


def _executed(block: Any, known: dict[str, Variable]) -> Iterator[Any]:
    """Yield the operations that compute; remember the types of all values, and what constants take in the file."""
    for operation in block.operations:
        if operation.type == "const" or operation.type.startswith("constexpr_"):
            found = read_type(operation.outputs[0].type)
            size, stored = _stored(operation, known)
            known[operation.outputs[0].name] = Variable(found.dtype, found.shape, size, stored or found.dtype)
            if len(operation.outputs) > 1:  # a mask and the values that it keeps: the bytes are counted with the values
                known[operation.outputs[0].name] = Variable(found.dtype, found.shape, 0, found.dtype)
                values = read_type(operation.outputs[1].type)
                known[operation.outputs[1].name] = Variable(values.dtype, values.shape, size, stored or values.dtype)
            continue
        for output in operation.outputs:
            known[output.name] = read_type(output.type)
        yield operation
        for inner in operation.blocks:
            yield from _executed(inner, known)


def _stored(operation: Any, known: dict[str, Variable]) -> tuple[int, str | None]:
    """Bytes of a constant in the file, and the dtype of its values (integers, indices, else itself).

    The values are the largest part, masks left aside: of very sparse weights there are fewer than bits in a byte.
    """
    if operation.type == "const":
        parts = [("val", read_type(operation.attributes["val"].type))]
    else:
        held = operation.attributes.items()
        parts = [(name, read_type(value.type)) for name, value in held if value.type.HasField("tensorType")]
        for name, argument in operation.inputs.items():
            parts += [(name, _bound(binding, known)) for binding in argument.arguments]
    parts = [(name, part) for name, part in parts if part.dtype in _BITS]
    sizes = [part.constant_bytes if part.stored_dtype is not None else _bytes(part) for _, part in parts]
    values = [part for name, part in parts if name not in _MASKS]
    largest = max(values, key=lambda part: math.prod(size or 1 for size in part.shape), default=None)
    if operation.type == "constexpr_lut_to_dense" and "lut" in operation.attributes:  # iOS16: indices packed in bytes
        entries = math.prod(size or 1 for size in read_type(operation.attributes["lut"].type).shape)
        return sum(sizes), f"uint{max(1, (entries - 1).bit_length())}"
    return sum(sizes), None if largest is None else largest.stored_dtype or largest.dtype


def _bytes(variable: Variable) -> int:
    return -(-math.prod(size or 1 for size in variable.shape) * _BITS.get(variable.dtype, 0) // 8)


def _bound(binding: Any, known: dict[str, Variable]) -> Variable:
    if binding.HasField("value"):
        return read_type(binding.value.type)
    return known.get(binding.name, Variable("unknown", ()))


_WEIGHTS = (
    "weight",
    "bias",
    "gamma",
    "beta",
    "mean",
    "variance",
    "x",
    "y",
    "weight_ih",
    "weight_hh",
    "values",
    "query",
    "key",
    "value",
)


def _arguments(operation: Any, known: dict[str, Variable]) -> dict[str, Variable]:
    """Tensors that an operation reads, by parameter; settings (strides, axes) left out."""
    found = {}
    for name in _WEIGHTS:
        if name in operation.inputs:
            for place, binding in enumerate(operation.inputs[name].arguments):
                variable = _bound(binding, known)
                if binding.HasField("value"):
                    variable = Variable(variable.dtype, variable.shape, _bytes(variable), variable.dtype)
                found[f"{name}{place or ''}"] = variable
    return found


def _weight_dtype(operation: Any, known: dict[str, Variable]) -> str | None:
    held = [value for value in _arguments(operation, known).values() if value.constant_bytes]
    # the weight has more elements than the bias, though maybe fewer bytes
    largest = max(held, key=lambda value: math.prod(size or 1 for size in value.shape), default=None)
    return largest.stored_dtype if largest is not None else None


def _kind(operation_type: str, name: str = "") -> Kind:
    if operation_type == "quantize":
        return "quantize"
    if operation_type == "dequantize":
        return "dequantize"
    if operation_type in _LAYOUT:
        return "layout"
    return "quantize" if name.startswith(INPUT_GRID) else "compute"


def _compute_dtype(operation: Any, known: dict[str, Variable]) -> str:
    """What an operation reads, unless it only moves values."""
    if _kind(operation.type) == "layout" or not operation.outputs:  # writing a state gives nothing
        return "none"
    inputs = _arguments(operation, known)
    return inputs["x"].dtype if "x" in inputs else read_type(operation.outputs[0].type).dtype


def _macs(operation: Any, known: dict[str, Variable]) -> int:
    inputs = _arguments(operation, known)
    produced = math.prod(size or 1 for size in read_type(operation.outputs[0].type).shape) if operation.outputs else 0
    if operation.type in ("conv", "conv_transpose") and "weight" in inputs:
        weight = [size or 1 for size in inputs["weight"].shape]
        moved = produced if operation.type == "conv" else math.prod(size or 1 for size in inputs["x"].shape)
        return moved * math.prod(weight[1:])
    if operation.type == "linear" and "weight" in inputs:
        return produced * _last(inputs["weight"])
    if operation.type == "scaled_dot_product_attention":
        query, key, value = ([size or 1 for size in inputs[name].shape] for name in ("query", "key", "value"))
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if operation.type == "matmul" and "x" in inputs:
        return produced * _last(inputs["x"])
    return 0


def _last(variable: Variable) -> int:
    """Return the size of the last dimension; 1 where it is free, or there is none."""
    return (variable.shape[-1] or 1) if variable.shape else 1
