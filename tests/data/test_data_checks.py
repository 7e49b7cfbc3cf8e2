from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.data import ArraySplit, Dataset, check_dataset, check_labels, labels_of
from edgekit.data.dataset import Array
from edgekit.errors import DataError


def split(count: int, **given: NDArray[np.generic] | None) -> ArraySplit:
    inputs = given.get("inputs")
    labels = given.get("labels", np.arange(count) % 3)
    return ArraySplit((np.random.default_rng(0).random((count, 4), np.float32) if inputs is None else inputs,), labels)


def dataset(**given: object) -> Dataset:
    parts = {"train": split(12), "validation": split(3), "test": split(6), **given}
    return Dataset(**parts)  # type: ignore[arg-type]


class LazySplit:
    """A split that counts what is read from it."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count, self.bad, self.read = count, bad, 0

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[Array, ...], Array | None]:
        picked = np.asarray(indices)
        self.read += len(picked)
        values = np.ones((len(picked), 4), np.float32)
        values[picked == self.bad] = np.nan
        return (values,), (picked % 3).astype(np.int64)


def test_check_passes_sound_data() -> None:
    check_dataset(dataset())
    check_dataset(dataset(classes=("a", "b", "c"), input_names=("x",)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_names_split_and_sample_when_a_value_is_not_finite(value: float) -> None:
    inputs = np.ones((6, 2, 2), np.float32)
    inputs[4, 1, 0] = value
    same = {
        name: split(count, inputs=np.ones((count, 2, 2), np.float32))
        for name, count in (("train", 12), ("validation", 3))
    }
    with pytest.raises(
        DataError, match=rf"split 'test': input 0: .* received {value} at sample 4, position \(1, 0\) \(1 "
    ):
        check_dataset(dataset(**same, test=split(6, inputs=inputs)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": split(1)}, "split 'train': expected at least 2 samples; received 1"),
        ({"test": split(0)}, "split 'test': expected at least 1 samples; received 0"),
        (
            {"test": split(6, inputs=np.ones((6, 5), np.float32))},
            r"split 'test': .* float32 \[4\] a sample; received float32 \[5\]",
        ),
        ({"test": split(6, inputs=np.ones((6, 4), np.int64))}, r"split 'test': .* received int64 \[4\] a sample"),
        (
            {"test": split(6, inputs=np.full((6, 4), "a"))},
            "split 'test': input 0: expected numbers .* received dtype <U1",
        ),
        ({"test": split(6, inputs=np.full((6, 4), None))}, "received dtype object"),
        ({"test": split(6, labels=None)}, "split 'test': expected labels in every split or in none"),
        ({"train": split(12, labels=np.ones(12, np.float32))}, "one integer a sample; received float32 .* regression"),
        ({"train": split(12, labels=np.ones((12, 3), np.int64))}, r"received int64 of shape \(12, 3\)"),
        ({"test": split(6, labels=np.array([0, 1, 2, -1, 0, 0]))}, "split 'test': .* received -1 at sample 3"),
        (
            {"classes": ("a", "b", "c"), "test": split(6, labels=np.array([0, 1, 2, 3, 3, 0]))},
            r"split 'test': expected labels from 0 to 2 \(3 classes\); received 3 at sample 3 \(2 labels out",
        ),
        ({"classes": ("a", "b", "c", "d")}, "split 'train': expected samples of every class; received none of d"),
        ({"test": split(6, labels=np.array([0, 1, 2, 7, 0, 0]))}, "split 'train': .* received none of 7"),
        ({"input_names": ("a", "b")}, r"one name for each of 1 inputs; received \['a', 'b'\]"),
    ],
)
def test_check_refuses_what_would_fail_later(given: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_dataset(dataset(**given))


def test_check_refuses_nan_targets_of_a_regression() -> None:
    parts = {name: split(count, labels=np.ones(count, np.float32)) for name, count in (("train", 4), ("validation", 2))}
    broken = split(2, labels=np.array([1.0, np.nan], np.float32))
    with pytest.raises(DataError, match="split 'test': labels: expected finite values; received nan at sample 1"):
        check_dataset(dataset(**parts, test=broken, task="regression"))


def test_check_reads_few_samples_when_a_split_is_lazy() -> None:
    lazy = LazySplit(5000)
    check_dataset(dataset(train=lazy, task="regression"))
    assert lazy.read == 64


def test_check_names_the_samples_own_index_when_a_split_is_lazy() -> None:
    with pytest.raises(DataError, match="at sample 4999"):
        check_dataset(dataset(train=LazySplit(5000, bad=4999)))


def test_labels_of_reads_all_batches_when_a_split_keeps_no_labels() -> None:
    labels = labels_of(LazySplit(700))
    assert labels is not None
    assert labels.tolist() == (np.arange(700) % 3).tolist()


def test_check_labels_holds_them_against_the_model() -> None:
    check_labels(np.array([0, 9]), 10, "test")
    with pytest.raises(DataError, match="received 10 at sample 1"):
        check_labels(np.array([0, 10], np.uint8), 10, "test")
