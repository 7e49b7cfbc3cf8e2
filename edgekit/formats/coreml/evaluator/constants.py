"""Constants: literals in the specification, and tensors in the weight files beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.evaluator.graph import Constant, Kind, Literals, ValueType

Array = NDArray[np.generic]

_PREFIX = "@model_path/"
_ENTRY_BYTES = 64
"""``blob_metadata`` of MILBlob: sentinel, dtype, size in bytes, offset of the data, all little-endian."""
_SENTINEL = 0xDEADBEEF
_READERS = {
    "float16": "read_fp16_data",
    "float32": "read_float_data",
    **{name: f"read_{name}_data" for name in ("int4", "int8", "int16", "int32")},
    **{
        name: f"read_{name}_data" for name in ("uint1", "uint2", "uint3", "uint4", "uint6", "uint8", "uint16", "uint32")
    },
}
_BITS = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "int4": 4, "uint6": 6}
NUMPY = {
    "bool": np.bool_, "float16": np.float16, "float32": np.float32, "float64": np.float64, "int8": np.int8,
    "int16": np.int16, "int32": np.int32, "int64": np.int64, "uint8": np.uint8, "uint16": np.uint16,
    "uint32": np.uint32, "uint64": np.uint64, "int4": np.int8, "uint1": np.uint8, "uint2": np.uint8,
    "uint3": np.uint8, "uint4": np.uint8, "uint6": np.uint8,
}  # fmt: skip
"""Declared dtype -> what holds it here; narrower integers take a byte each."""


def read_type(proto: Any) -> ValueType:
    """Read a declared type."""
    kind = proto.WhichOneof("type")
    if kind == "tensorType":
        return _tensor_type(proto.tensorType, "tensor")
    if kind == "stateType":
        return _tensor_type(proto.stateType.wrappedType.tensorType, "state")
    if kind == "listType":
        return _tensor_type(proto.listType.type.tensorType, "list")
    return ValueType("dictionary" if kind == "dictionaryType" else "tuple", "", ())


def _tensor_type(proto: Any, kind: Kind) -> ValueType:
    names = type(proto).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    known = names.get(proto.dataType)
    dtype = known.name.lower() if known is not None else f"type {proto.dataType}"
    sizes: list[int | None] = []
    for dimension in proto.dimensions:
        is_free = dimension.WhichOneof("dimension") != "constant"
        if is_free and dimension.unknown.variadic:
            return ValueType(kind, dtype, None)
        sizes.append(None if is_free else int(dimension.constant.size))
    return ValueType(kind, dtype, tuple(sizes))


class Constants:
    """Reads constants of one package.

    Args:
        folder: Where ``model.mlmodel`` lies; weight files are looked for inside it, and nowhere else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._readers: dict[Path, Any] = {}

    def read(self, proto: Any, place: str) -> Constant:
        """Read a value.

        Args:
            proto: ``MIL_pb2.Value``.
            place: For messages.

        Raises:
            ArtifactError: The weight file is missing or does not hold what the value says.
        """
        declared = read_type(proto.type)
        which = proto.WhichOneof("value")
        if which == "immediateValue":
            return Constant(declared, self._immediate(proto.immediateValue, declared, place))
        if which == "blobFileValue":
            return Constant(declared, self._blob(proto.blobFileValue, declared, place))
        raise ArtifactError(f"{place}: a constant without a value. Export the package again.")

    def _immediate(self, proto: Any, declared: ValueType, place: str) -> Literals:
        which = proto.WhichOneof("value")
        if which == "tensor":
            return _literal(proto.tensor, declared, place)
        if which == "dictionary":
            pairs = [
                (self.read(item.key, place).value, self.read(item.value, place).value)
                for item in proto.dictionary.values
            ]
            return {str(key): value for key, value in pairs}
        items = proto.list.values if which == "list" else proto.tuple.values
        return tuple(self.read(item, place).value for item in items)

    def _blob(self, proto: Any, declared: ValueType, place: str) -> Array:
        file = self._file(proto.fileName, place)
        elements = _elements(declared, place)
        reader_name = _READERS.get(declared.dtype)
        if reader_name is None:
            raise ArtifactError(
                f"{place}: weight files hold no {declared.dtype}; expected one of {', '.join(_READERS)}."
            )
        _check_entry(file, int(proto.offset), elements, declared, place)
        try:
            array: Array = np.asarray(getattr(self._reader(file), reader_name)(int(proto.offset)))
        except RuntimeError as error:
            raise ArtifactError(f"{place}: {str(file)!r} has no {declared} at byte {proto.offset}: {error}") from error
        if declared.dtype == "float16":
            array = array.view(np.float16)
        if array.size != elements:
            raise ArtifactError(f"{place}: expected {elements} elements in {str(file)!r}; received {array.size}.")
        return array.astype(NUMPY[declared.dtype], copy=False).reshape(_sizes(declared))

    def _file(self, name: str, place: str) -> Path:
        file = (self._folder / name.removeprefix(_PREFIX)).resolve()
        if not file.is_relative_to(self._folder):
            raise ArtifactError(f"{place}: expected a weight file inside the package; received {name!r}.")
        if not file.is_file():
            raise ArtifactError(f"{place}: expected constants in {str(file)!r}; there is no such file. Copy it again.")
        return file

    def _reader(self, file: Path) -> Any:
        if file not in self._readers:
            from coremltools.libmilstoragepython import _BlobStorageReader

            self._readers[file] = _BlobStorageReader(str(file))
        return self._readers[file]


def _check_entry(file: Path, offset: int, elements: int, declared: ValueType, place: str) -> None:
    """Check an entry before the reader follows it: the reader trusts its sizes."""
    size_of_file = file.stat().st_size
    if offset > size_of_file:
        raise ArtifactError(f"{place}: {str(file)!r} has no constant at byte {offset} ({size_of_file} bytes).")
    with file.open("rb") as stream:
        stream.seek(offset)
        entry = stream.read(_ENTRY_BYTES)
    if len(entry) < _ENTRY_BYTES or int.from_bytes(entry[:4], "little") != _SENTINEL:
        raise ArtifactError(f"{place}: {str(file)!r} has no constant at byte {offset} ({size_of_file} bytes).")
    size, start = (int.from_bytes(entry[at : at + 8], "little") for at in (8, 16))
    bits = _BITS.get(declared.dtype) or np.dtype(NUMPY[declared.dtype]).itemsize * 8
    needed = -(-elements * bits // 8)
    if start + size > size_of_file:
        raise ArtifactError(
            f"{place}: expected {start + size} bytes in {str(file)!r}; received {size_of_file}: it is truncated."
        )
    if size != needed:
        raise ArtifactError(f"{place}: {declared} takes {needed} bytes; the entry at byte {offset} has {size}.")


def _literal(proto: Any, declared: ValueType, place: str) -> Array | str:
    which = proto.WhichOneof("value")
    values = getattr(proto, which).values if which else ()
    if declared.dtype == "string":
        words = list(values)
        return str(words[0]) if declared.shape == () and words else np.array(words, dtype=object)
    elements = _elements(declared, place)
    if declared.dtype not in NUMPY:
        raise ArtifactError(f"{place}: no constant of dtype {declared.dtype} is known. Export it with a known dtype.")
    if which == "strings":
        raise ArtifactError(f"{place}: expected elements of {declared}; received words. Export the package again.")
    array = _unpack(bytes(values), declared.dtype, elements) if which == "bytes" else np.array(values)
    if array.size != elements:
        raise ArtifactError(f"{place}: expected {elements} elements of {declared}; received {array.size}.")
    with np.errstate(invalid="ignore"):  # integers that are written as NaN have no value of their own
        return array.astype(NUMPY[declared.dtype]).reshape(_sizes(declared))


def _unpack(data: bytes, dtype: str, elements: int) -> Array:
    """Read bytes; integers of less than eight bits are packed from the least significant bit on."""
    bits = _BITS.get(dtype)
    if bits is None:
        item = np.dtype(NUMPY[dtype]).itemsize
        return np.frombuffer(data[: len(data) // item * item], NUMPY[dtype])
    return unpack_bits(np.frombuffer(data, np.uint8), bits, elements, signed=dtype == "int4")


def unpack_bits(packed: Array, bits: int, elements: int, *, signed: bool = False) -> NDArray[np.uint8 | np.int8]:
    """Unpack integers of a few bits, the first in the least significant bits of the first byte.

    Example:
        >>> unpack_bits(np.array([0b01101100, 0b11], np.uint8), 2, 5).tolist()
        [0, 3, 2, 1, 3]
    """
    flat = np.unpackbits(packed.astype(np.uint8), bitorder="little")
    flat = flat[: flat.size // bits * bits].reshape(-1, bits)[:elements]
    weights = (1 << np.arange(bits)).astype(np.int16)
    values = flat.astype(np.int16) @ weights
    if signed:
        return np.where(values >= 1 << (bits - 1), values - (1 << bits), values).astype(np.int8)
    return values.astype(np.uint8)


def _sizes(declared: ValueType) -> tuple[int, ...]:
    return tuple(size or 0 for size in declared.shape or ())


def _elements(declared: ValueType, place: str) -> int:
    if declared.shape is None or None in declared.shape:
        raise ArtifactError(f"{place}: expected a constant of known shape; received {declared}.")
    return math.prod(_sizes(declared))
