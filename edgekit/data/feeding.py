"""What every session does with its inputs and outputs: check, cast without loss, quantize, dequantize.

Inputs arrive as the source model takes them. An artifact may hold narrower integers (int64 tokens become int32) or
quantized tensors; values that would not survive the cast are refused instead of wrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.records import Quantization, TensorSpec

Array = NDArray[np.generic]


def fit_inputs(specs: Sequence[TensorSpec], inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Make arrays fit an artifact's inputs.

    Args:
        specs: The artifact's inputs; a size of None is free.
        inputs: One array an input, in the same order.

    Returns:
        Contiguous arrays of the artifact's dtypes.

    Raises:
        DataError: Another number of inputs, a wrong shape or dtype, an empty array, a value that the artifact's dtype
            cannot hold, or batch sizes that differ where the batch is free.
    """
    if len(inputs) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"expected {len(specs)} inputs ({names}); received {len(inputs)}")
    fitted = tuple(_fit(spec, np.asarray(array)) for spec, array in zip(specs, inputs, strict=True))
    batches = {array.shape[0] for spec, array in zip(specs, fitted, strict=True) if spec.shape[:1] == (None,)}
    if len(batches) > 1:
        raise DataError(f"expected the same batch size in every input; received {sorted(batches)}")
    return fitted


def read_output(spec: TensorSpec, array: Array) -> Array:
    """Return an output as the source model would give it: quantized integers become real numbers (float32)."""
    if spec.quantization is None:
        return array
    return dequantize(array, spec.quantization)


def quantize(array: Array, quantization: Quantization) -> Array:
    """Quantize real numbers: ``clip(round(x / scale) + zero_point)``, with one scale for the whole tensor.

    Rounds as ``quantized_decomposed.quantize_per_tensor`` does: half to even, on ``x * float32(1 / scale)``.

    Example:
        >>> quantize(np.array([0.0, 0.26, 99.0], np.float32), Quantization(scale=(0.5,), zero_point=(3,)))
        array([  3,   4, 127], dtype=int8)
    """
    limits = np.iinfo(quantization.dtype)
    inverse = np.float32(1.0 / quantization.scale[0])
    steps = np.rint(array.astype(np.float32) * inverse) + np.float32(quantization.zero_point[0])
    quantized: Array = np.clip(steps, limits.min, limits.max).astype(quantization.dtype)
    return quantized


def dequantize(array: Array, quantization: Quantization) -> NDArray[np.float32]:
    """Turn integers into real numbers: ``(q - zero_point) * scale``, float32, one scale for the whole tensor."""
    centred = array.astype(np.int64) - quantization.zero_point[0]
    return centred.astype(np.float32) * np.float32(quantization.scale[0])


def _fit(spec: TensorSpec, array: Array) -> Array:
    _check_shape(spec, array)
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray gives scalars a dimension
    if spec.quantization is not None and array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"input {spec.name!r}: expected finite numbers; received NaN or infinity")
        return quantize(array, spec.quantization)
    if array.dtype.kind in "iu" and wanted.kind in "iu" and spec.quantization is None:
        return _cast_integers(spec, array, wanted)
    if np.can_cast(array.dtype, wanted, casting="safe") and array.dtype.kind == wanted.kind:
        return array.astype(wanted)
    raise DataError(
        f"input {spec.name!r}: expected dtype {spec.dtype}; received {array.dtype}. "
        f"Convert it with array.astype('{spec.dtype}') if that loses nothing"
    )


def _check_shape(spec: TensorSpec, array: Array) -> None:
    same_rank = array.ndim == len(spec.shape)
    if same_rank and all(size in (None, given) for size, given in zip(spec.shape, array.shape, strict=True)):
        if array.size:
            return
        raise DataError(f"input {spec.name!r}: expected at least one sample; received an empty array {array.shape}")
    wanted = "[" + ", ".join("batch" if size is None else str(size) for size in spec.shape) + "]"
    raise DataError(f"input {spec.name!r}: expected shape {wanted}; received {list(array.shape)}")


def _cast_integers(spec: TensorSpec, array: Array, wanted: np.dtype[Any]) -> Array:
    limits = np.iinfo(wanted)
    lowest, highest = int(array.min()), int(array.max())
    if lowest < limits.min or highest > limits.max:
        raise DataError(
            f"input {spec.name!r}: the artifact holds {wanted} ({limits.min} to {limits.max}); received {array.dtype} "
            f"values from {lowest} to {highest}"
        )
    return array.astype(wanted)
