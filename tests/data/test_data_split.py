from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data import hold_out, stratified_order
from edgekit.errors import DataError


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), prefix=st.integers(1, 200), seed=st.integers(0, 2**32)
)
def test_stratified_order_gives_every_prefix_the_shares_of_the_classes(
    sizes: list[int], prefix: int, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(labels, len(labels), seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    prefix = min(prefix, len(labels))
    held = np.bincount(labels[order[:prefix]], minlength=len(sizes))
    # Each class interleaves at its own pace, so a prefix is off by the rounding of each class at most.
    assert np.all(np.abs(held - np.array(sizes) * prefix / len(labels)) <= len(sizes))


def test_stratified_order_differs_when_the_seed_differs() -> None:
    labels = np.arange(60) % 3
    assert stratified_order(labels, 60, 1).tolist() != stratified_order(labels, 60, 2).tolist()
    assert stratified_order(labels, 60, 1).tolist() == stratified_order(labels, 60, 1).tolist()


@given(count=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_hold_out_partitions_the_samples(count: int, share: float, seed: int) -> None:
    indices = np.arange(count) * 3
    stay, held = hold_out(indices, None, share, seed, "test")
    assert sorted([*stay.tolist(), *held.tolist()]) == indices.tolist()
    assert len(stay) >= 1
    assert abs(len(held) - count * share) <= 1


def test_hold_out_refuses_when_there_is_one_sample() -> None:
    with pytest.raises(DataError, match="at least 2 samples to hold out a test split; received 1"):
        hold_out(np.arange(1), None, 0.5, 0, "test")
