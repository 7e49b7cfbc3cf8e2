"""Arrays of a dataset as a Keras model takes them: channels last, in the model's own dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.data.dataset import Array
from edgekit.errors import DataError
from edgekit.records import TensorSpec

__all__ = ["as_arrays"]


def as_arrays(inputs: Sequence[Array], layout: str | None, specs: Sequence[TensorSpec]) -> tuple[Array, ...]:
    """Turn a batch into what a model takes, without losing a value.

    Args:
        inputs: Arrays, batch in axis 0.
        layout: The data's layout. ``NCHW``: rank-4 arrays become NHWC. Otherwise nothing is moved.
        specs: The model's inputs. Real numbers are rounded to the model's float dtype. Integers become any dtype that
            holds their values. The size of axis 0 is not compared. A quantized input takes real numbers; integers of
            its own quantized dtype are read as quantized values.

    Returns:
        Contiguous arrays of the specs' dtypes and shapes.

    Raises:
        DataError: Another number of inputs, another shape, or values that the model's dtype cannot hold.

    Example:
        >>> spec = TensorSpec(name="ids", dtype="int32", shape=(1, 2))
        >>> as_arrays([np.array([[1, 2]], np.int64)], None, [spec])[0].dtype
        dtype('int32')
    """
    if len(inputs) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"the model takes {len(specs)} inputs ({names}); the data give {len(inputs)}")
    return tuple(_fit(np.asarray(array), layout, spec) for array, spec in zip(inputs, specs, strict=True))


def _fit(array: Array, layout: str | None, spec: TensorSpec) -> Array:
    if layout == "NCHW" and array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    _check_shape(array, layout, spec)
    return np.ascontiguousarray(_cast(array, spec))


def _check_shape(array: Array, layout: str | None, spec: TensorSpec) -> None:
    wanted = spec.shape[1:]
    same_rank = array.ndim == len(spec.shape)
    if same_rank and all(size in (None, given) for size, given in zip(wanted, array.shape[1:], strict=True)):
        return
    expected = ", ".join(["batch", *("any" if size is None else str(size) for size in wanted)])
    turned = " (turned from NCHW to NHWC)" if layout == "NCHW" and array.ndim == 4 else ""
    raise DataError(
        f"input {spec.name!r}: expected shape [{expected}]; received {list(array.shape)}{turned}. "
        "Check the shape of the data and their layout"
    )


def _cast(array: Array, spec: TensorSpec) -> Array:
    wanted = np.dtype(spec.dtype)
    if spec.quantization is not None and array.dtype == np.dtype(spec.quantization.dtype):
        centred = array.astype(np.float32) - np.float32(spec.quantization.zero_point[0])
        return centred * np.float32(spec.quantization.scale[0])
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "f" and wanted.kind == "f":
        return array.astype(wanted)
    if array.dtype.kind not in "biuf" or wanted.kind not in "biuf":
        raise DataError(f"input {spec.name!r}: expected dtype {spec.dtype}; received {array.dtype}")
    with np.errstate(invalid="ignore"):  # a value out of range is found by comparing, below
        cast: Array = array.astype(wanted)
    if not _same_values(array, cast):
        raise DataError(
            f"input {spec.name!r}: the model takes {spec.dtype}, which cannot hold every value of the data "
            f"({array.dtype}, from {array.min()} to {array.max()}). Convert the data yourself if that is meant"
        )
    return cast


def _same_values(array: Any, cast: Any) -> bool:
    """Compare as numbers: a value that wrapped, or was cut off, differs."""
    with np.errstate(invalid="ignore"):
        return bool(np.array_equal(cast.astype(array.dtype), array)) and bool(((cast < 0) == (array < 0)).all())
