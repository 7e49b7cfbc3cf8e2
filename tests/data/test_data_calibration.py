from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.data import ArraySplit, CalibrationSet, Dataset, audit_calibration, sample_calibration


def dataset(count: int = 400, classes: int = 4) -> Dataset:
    generator = np.random.default_rng(0)
    labels = np.sort(np.arange(count) % classes)
    values = generator.standard_normal((count, 1, 4, 4), np.float32)
    train = ArraySplit((values,), labels)
    return Dataset(train=train, validation=train, test=ArraySplit((values[::2],), labels[::2]))


def calibration(values: NDArray[np.float32], labels: NDArray[np.int64] | None = None) -> CalibrationSet:
    return CalibrationSet(inputs=(values,), labels=labels, indices=tuple(range(len(values))))


def test_sample_calibration_has_every_class_and_is_repeatable() -> None:
    data = dataset()
    drawn = sample_calibration(data, 40, seed=3)
    assert drawn.labels is not None
    assert np.bincount(drawn.labels.astype(int)).tolist() == [10, 10, 10, 10]
    assert drawn.indices == sample_calibration(data, 40, seed=3).indices
    assert drawn.indices != sample_calibration(data, 40, seed=4).indices
    assert np.array_equal(drawn.inputs[0], data.train.batch(drawn.indices)[0][0])


def test_sample_calibration_takes_all_when_there_are_fewer() -> None:
    assert len(sample_calibration(dataset(20), 200, seed=0).indices) == 20


def test_audit_is_silent_when_the_samples_are_good() -> None:
    data = dataset()
    audit = audit_calibration(sample_calibration(data, 200, seed=0), data)
    assert audit.warnings == ()
    assert not audit.useless
    assert audit.samples == 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((64, 1, 4, 4), 0.5, np.float32), "each of the 64 samples is constant"),
        (np.ones((64, 1, 4, 4), np.float32) * np.arange(64, dtype=np.float32)[:, None, None, None], "is constant"),
        (
            np.repeat(np.random.default_rng(0).standard_normal((1, 1, 4, 4), np.float32), 64, 0),
            "the same one, repeated",
        ),
        (np.full((1, 1, 4, 4), 0.5, np.float32), "each of the 1 samples is constant"),
    ],
)
def test_audit_calls_samples_useless_when_they_say_nothing(values: NDArray[np.float32], message: str) -> None:
    audit = audit_calibration(calibration(values), dataset())
    assert audit.useless
    assert message in audit.warnings[0]
    assert "useless" in audit.warnings[0]


def test_audit_warns_when_there_are_few_samples_or_classes_are_missing() -> None:
    data = dataset()
    inputs, labels = data.train.batch(range(20))
    audit = audit_calibration(CalibrationSet(inputs=inputs, labels=labels, indices=tuple(range(20))), data)
    assert not audit.useless
    assert any("only 20 calibration samples" in text for text in audit.warnings)
    assert any("no calibration sample of 3 classes: 1, 2, 3;" in text for text in audit.warnings)


@pytest.mark.parametrize(("factor", "verdict"), [(255.0, "more than twice as wide"), (0.1, "narrower than")])
def test_audit_warns_when_samples_are_preprocessed_differently(factor: float, verdict: str) -> None:
    data = dataset()
    drawn = sample_calibration(data, 100, seed=0)
    audit = audit_calibration(calibration(drawn.inputs[0].astype(np.float32) * np.float32(factor)), data)
    assert [verdict in text for text in audit.warnings] == [True]


def test_audit_leaves_integer_inputs_alone() -> None:
    ids = ArraySplit((np.zeros((64, 4), np.int64),), np.zeros(64, np.int64))
    data = Dataset(train=ids, validation=ids, test=ids)
    assert audit_calibration(sample_calibration(data, 64, seed=0), data).warnings == ()
