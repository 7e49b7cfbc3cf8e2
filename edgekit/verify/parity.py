"""How far outputs are from a reference: numpy only, computed in float64.

Infinities are compared by position: a masked logit that is ``-inf`` on both sides is equal. A NaN, or an infinity on
one side only, has no distance to average: :func:`incomparable` names it, :func:`compare_outputs` refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.records import SQNR_CEILING_DB, OutputParity

Array = NDArray[np.generic]
Float = NDArray[np.float64]

EXACT_SHARE_OF_STEP = 0.01
"""Quantized outputs count as equal up to this share of a step: scales are stored as float32 or float16."""

FINEST_FLOAT32 = 2.0**-149
"""Spacing of the smallest float32 numbers. Outputs near 1e-42 hold three digits at most; a difference of one such
spacing is the best that any runtime can do, and counts as none."""


def incomparable(names: Sequence[str], outputs: Sequence[Array], reference: Sequence[Array]) -> str | None:
    """Say why outputs cannot be compared with a reference at all.

    Args:
        names: One name an output.
        outputs: What the artifact gave, samples in axis 0.
        reference: What it should have given.

    Returns:
        One sentence, or None where every distance is defined.
    """
    if len(outputs) != len(reference):
        return f"expected {len(reference)} outputs, received {len(outputs)}"
    for name, output, expected in zip(names, outputs, reference, strict=True):
        if output.shape != expected.shape:
            return f"output {name!r}: expected shape {expected.shape}, received {output.shape}"
        bad = ~np.isfinite(_real(output)) | ~np.isfinite(_real(expected))
        bad &= _real(output) != _real(expected)
        if bad.any():
            return _describe_bad(name, _real(output), _real(expected), bad)
    return None


def compare_outputs(
    names: Sequence[str],
    outputs: Sequence[Array],
    reference: Sequence[Array],
    steps: Sequence[float | None],
    task: Literal["classification"] | None,
) -> tuple[OutputParity, ...]:
    """Measure the distance of each output to its reference.

    Args:
        names: One name an output.
        outputs: ``[N, ...]`` each, any real dtype.
        reference: The same shapes.
        steps: Quantization step of each output, None where it is not quantized.
        task: ``classification`` where the last axis of an output holds classes.

    Raises:
        DataError: Shapes differ, or a value has no distance (NaN); see :func:`incomparable`.

    Example:
        >>> compare_outputs(["y"], [np.array([[1.0, 2.0]])], [np.array([[1.0, 2.5]])], [0.5], None)[0].max_steps
        1.0
    """
    problem = incomparable(names, outputs, reference)
    if problem is not None:
        raise DataError(f"outputs cannot be compared: {problem}")
    return tuple(
        _compare(name, _real(output), _real(expected), step, task)
        for name, output, expected, step in zip(names, outputs, reference, steps, strict=True)
    )


def sqnr_db(output: Float, reference: Float) -> float:
    """Signal-to-quantization-noise ratio in dB, between ``-SQNR_CEILING_DB`` and ``SQNR_CEILING_DB``.

    ``10 log10(sum(ref^2) / sum((ref - out)^2))``. Both sides are scaled by the largest value first, so that outputs of
    1e-200 do not underflow when squared.

    Example:
        >>> round(sqnr_db(np.array([0.9]), np.array([1.0])), 3)
        20.0
    """
    return _noise_db(output - reference, reference)


def _noise_db(error: Float, reference: Float) -> float:
    largest = max(float(np.abs(reference).max(initial=0.0)), float(np.abs(error).max(initial=0.0)))
    if not error.any():
        return SQNR_CEILING_DB
    signal = float(np.sum((reference / largest) ** 2))
    noise = float(np.sum((error / largest) ** 2))
    if signal == 0.0:
        return -SQNR_CEILING_DB
    if noise == 0.0:
        return SQNR_CEILING_DB
    return float(np.clip(10.0 * (np.log10(signal) - np.log10(noise)), -SQNR_CEILING_DB, SQNR_CEILING_DB))


def cosine(output: Float, reference: Float) -> float:
    """Cosine similarity of two flattened arrays; 1 when both are zero, 0 when one is.

    Example:
        >>> cosine(np.array([2.0, 0.0]), np.array([1.0, 0.0]))
        1.0
    """
    largest_output = float(np.abs(output).max(initial=0.0))
    largest_reference = float(np.abs(reference).max(initial=0.0))
    if largest_output == 0.0 or largest_reference == 0.0:
        return 1.0 if largest_output == largest_reference else 0.0
    a, b = output.ravel() / largest_output, reference.ravel() / largest_reference
    return float(np.clip(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0))


def top1_agreement(output: Float, reference: Float) -> float:
    """Share of rows (last axis) whose largest value sits at the same place; of equals the first counts."""
    return float(np.mean(output.argmax(-1) == reference.argmax(-1)))


def _compare(
    name: str, output: Float, reference: Float, step: float | None, task: Literal["classification"] | None
) -> OutputParity:
    classes = task == "classification" and reference.ndim >= 2 and reference.shape[-1] >= 2 and reference.size > 0
    agreement = top1_agreement(output, reference) if classes else None
    both = np.isfinite(reference)  # what is infinite here is equal on both sides
    output, reference = np.where(both, output, 0.0), np.where(both, reference, 0.0)
    error = np.abs(output - reference)
    error = np.where(error <= FINEST_FLOAT32, 0.0, error)
    in_steps = None if step is None else error / step
    return OutputParity(
        name=name,
        max_abs_error=float(error.max(initial=0.0)),
        mean_abs_error=_mean(error),
        sqnr_db=_noise_db(error, reference),
        cosine=cosine(output, reference),
        top1_agreement=agreement,
        max_steps=None if in_steps is None else float(in_steps.max(initial=0.0)),
        mean_steps=None if in_steps is None else _mean(in_steps),
        exact=_mean(error == 0.0) if in_steps is None else _mean(in_steps <= EXACT_SHARE_OF_STEP),
        within_one_step=None if in_steps is None else _mean(in_steps <= 1.0 + EXACT_SHARE_OF_STEP),
    )


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 1.0 if values.dtype == np.bool_ else 0.0


def _real(array: Array) -> Float:
    if np.iscomplexobj(array) or array.dtype.kind not in "fiub":
        raise DataError(f"expected outputs of real numbers; received dtype {array.dtype}")
    return array.astype(np.float64)


def _describe_bad(name: str, output: Float, reference: Float, bad: NDArray[np.bool_]) -> str:
    side, values = ("the artifact", output) if (bad & ~np.isfinite(output)).any() else ("the reference", reference)
    nans = int((bad & np.isnan(values)).sum())
    infinities = int((bad & np.isinf(values)).sum())
    samples = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1)) if bad.ndim else np.array([0])
    total = len(bad) if bad.ndim else 1
    return (
        f"output {name!r}: {side} gives {nans} NaN and {infinities} infinite values, in {len(samples)} of {total} "
        f"samples (the first is sample {int(samples[0])})"
    )
