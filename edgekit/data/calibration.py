"""Which training samples quantization observes, and whether they are worth observing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.data.checks import labels_of, spread
from edgekit.data.dataset import Array, Dataset
from edgekit.data.split import stratified_order

FEW_SAMPLES = 32
"""Below so many samples the extremes of activations are mostly luck."""

RANGE_SAMPLES = 256
"""Test samples whose range is compared with that of the calibration samples."""

RANGE_MARGIN = 0.1
"""Share of the test samples' range by which the calibration range may fall short on either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Samples that observers see.

    Attributes:
        inputs: One array an input of the model, ``[N, ...]``.
        labels: Their labels, where the data have any.
        indices: Their positions in the training split, ascending.
    """

    inputs: tuple[Array, ...]
    labels: Array | None
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationAudit:
    """What is doubtful about calibration samples.

    Attributes:
        samples: How many there are.
        useless: Whether they carry no information at all (constant, or one sample repeated).
        warnings: Sentences for the log and the report; empty when all is well.
    """

    samples: int
    useless: bool
    warnings: tuple[str, ...]


def sample_calibration(dataset: Dataset, samples: int, seed: int) -> CalibrationSet:
    """Draw calibration samples from the training split, the classes in their true shares.

    Args:
        dataset: Where to draw from.
        samples: How many; all of them when there are fewer.
        seed: The same seed draws the same samples.
    """
    labels = labels_of(dataset.train)
    order = stratified_order(labels, len(dataset.train), seed)
    indices = np.sort(order[: min(samples, len(order))])
    inputs, picked = dataset.train.batch(indices)
    return CalibrationSet(inputs=inputs, labels=picked, indices=tuple(indices.tolist()))


def audit_calibration(calibration: CalibrationSet, dataset: Dataset) -> CalibrationAudit:
    """Look for calibration samples that would fix useless scales.

    Found are: constant samples; one sample repeated; fewer than :data:`FEW_SAMPLES`; classes without a sample;
    a range of values unlike that of the test samples.

    Args:
        calibration: As drawn, or as a user handed it in.
        dataset: For its classes and test samples.
    """
    count = len(calibration.inputs[0])
    warnings: list[str] = []
    useless = False
    for number, array in enumerate(calibration.inputs):
        found = _repetition(array) if array.dtype.kind == "f" else None
        if found is not None:
            useless = True
            warnings.append(
                f"calibration input {number}: {found}; the scales fixed from it are useless. Give real, varied samples."
            )
        elif array.dtype.kind == "f":
            warnings.extend(_range_warning(number, array, dataset))
    if count < FEW_SAMPLES:
        warnings.append(
            f"only {count} calibration samples: activation ranges are uncertain below {FEW_SAMPLES}; "
            "raise data.calibration_samples or give more training samples."
        )
    warnings.extend(_class_warning(calibration.labels, dataset))
    return CalibrationAudit(samples=count, useless=useless, warnings=tuple(warnings))


def _repetition(array: Array) -> str | None:
    if array.ndim > 1:
        flat = array.reshape(len(array), -1)
        constant = np.ptp(flat, axis=1) == 0 if flat.shape[1] > 1 else np.zeros(len(flat), bool)
        if constant.all():
            return f"each of the {len(array)} samples is constant (value {flat[0, 0]:g} in the first)"
    if len(array) > 1 and (array == array[:1]).all():
        return f"all {len(array)} samples are the same one, repeated"
    return None


def _range_warning(number: int, array: Array, dataset: Dataset) -> list[str]:
    test = dataset.test.batch(spread(len(dataset.test), RANGE_SAMPLES))[0][number]
    low, high, test_low, test_high = (float(value) for value in (array.min(), array.max(), test.min(), test.max()))
    margin = RANGE_MARGIN * (test_high - test_low)
    if low > test_low + margin or high < test_high - margin:
        verdict = "narrower than"
    elif high - low > 2 * (test_high - test_low):
        verdict = "more than twice as wide as"
    else:
        return []
    return [
        f"calibration input {number}: its values span [{low:.4g}, {high:.4g}], {verdict} the test samples' "
        f"[{test_low:.4g}, {test_high:.4g}]; check that both are preprocessed alike."
    ]


def _class_warning(labels: Array | None, dataset: Dataset) -> list[str]:
    if labels is None or dataset.task != "classification":
        return []
    known = np.arange(len(dataset.classes)) if dataset.classes else labels_of(dataset.train)
    missing = np.setdiff1d(known, labels) if known is not None else np.array([])
    if not len(missing):
        return []
    shown = ", ".join(dataset.classes[label] if dataset.classes else str(label) for label in missing[:10])
    rest = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    return [f"no calibration sample of {len(missing)} classes: {shown}{rest}; raise data.calibration_samples."]
