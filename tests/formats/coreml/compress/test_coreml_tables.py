"""Tables of values and the means in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.formats.coreml.compress.kmeans import means_of_values, means_of_vectors
from edgekit.formats.coreml.compress.tables import table_maker, table_of_values

FINITE = st.floats(-100, 100, width=16)


@given(arrays.arrays(np.float16, st.integers(1, 200), elements=FINITE), st.integers(1, 16))
@settings(deadline=None)
def test_each_value_is_held_by_its_nearest_mean_when_means_are_found(values: np.ndarray, count: int) -> None:
    means, places = means_of_values(values, count)
    assert len(means) <= count
    assert (np.diff(means) >= 0).all()
    distance = np.abs(values.astype(np.float64)[:, None] - means[None])
    np.testing.assert_allclose(distance[np.arange(len(values)), places], distance.min(axis=1), atol=1e-9)


@given(arrays.arrays(np.float16, st.integers(1, 40), elements=FINITE), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_means_are_exact_or_the_means_of_what_they_hold(values: np.ndarray, count: int) -> None:
    means, places = means_of_values(values, count)
    if len(np.unique(values)) <= count:
        np.testing.assert_array_equal(means[places], values)
        return
    for place in np.unique(places):
        assert means[place] == pytest.approx(values[places == place].astype(np.float64).mean(), abs=1e-6)


def test_means_leave_less_error_than_evenly_spread_ones() -> None:
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float16)
    means, places = means_of_values(values, 16)
    even = np.linspace(values.min(), values.max(), 16)
    spread = np.abs(values[:, None] - even[None]).min(axis=1)
    assert np.mean((means[places] - values) ** 2) < 0.5 * np.mean(spread**2)
    # Max, "Quantizing for minimum distortion" (1960), table I: 16 levels of a normal distribution leave 0.009497.
    assert np.mean((means[places] - values) ** 2) == pytest.approx(0.009497, rel=0.05)


def test_means_of_vectors_find_the_clusters_they_were_drawn_from() -> None:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(8, 3)) * 10
    drawn = generator.integers(0, 8, 500)
    vectors = (centers[drawn] + generator.normal(size=(500, 3)) * 0.01).astype(np.float32)
    means, places = means_of_vectors(vectors, 8)
    assert np.abs(means[places] - vectors).max() < 0.1
    exact, where = means_of_vectors(vectors[:5], 8)
    np.testing.assert_array_equal(exact[where], vectors[:5].astype(np.float64))


def test_palette_of_four_bits_holds_every_weight_exactly() -> None:
    weights = np.arange(-7, 8).astype(np.float16) * np.float16(0.37)
    weights = np.random.default_rng(0).choice(weights, 64)
    table, places = table_of_values(weights)
    assert len(table) == 16 and places.dtype == np.uint8 and table.dtype == weights.dtype
    np.testing.assert_array_equal(table[places], weights)


def test_table_spends_no_entry_on_zero_when_zeros_are_not_stored() -> None:
    weights = np.array([[0, 1, 2, 3], [4, 0, 0, 1]], np.float16)
    table, places = table_maker(2, without_zeros=True)(weights)
    kept = weights.reshape(-1) != 0
    np.testing.assert_array_equal(table[places][kept], weights.reshape(-1)[kept])
    assert 0 not in table


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 3, 3)])
def test_vectors_lie_as_coremltools_expects_them(shape: tuple[int, ...]) -> None:
    optimize_utils = pytest.importorskip("coremltools.optimize._utils")
    weights = np.random.default_rng(0).integers(0, 4, shape).astype(np.float16)
    table, places = table_maker(8, vector=2)(weights)
    indices = places.reshape(shape[0] // 2, *shape[1:])
    lut = table.reshape(*[1] * len(shape), *table.shape)
    np.testing.assert_array_equal(optimize_utils.lut_to_dense(indices, lut, 0), weights)


@pytest.mark.parametrize("size", [36_864, 147_456])
def test_few_values_of_a_large_float16_weight_are_all_found(size: int) -> None:
    """numpy's AVX-512 sort of float16 leaves such arrays unsorted."""
    few = np.linspace(-1, 1, 16).astype(np.float16)
    weights = np.random.default_rng(0).choice(few, size)
    table, places = table_maker(4)(weights)
    np.testing.assert_array_equal(table[places], weights)
    np.testing.assert_array_equal(np.sort(table.astype(np.float32)), few.astype(np.float32))
    channel, where = table_of_values(weights[:15_000])
    np.testing.assert_array_equal(channel[where], weights[:15_000])
