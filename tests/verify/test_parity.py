from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.errors import DataError
from edgekit.records import SQNR_CEILING_DB
from edgekit.verify.parity import compare_outputs, cosine, incomparable, sqnr_db, top1_agreement

NUMBERS = st.floats(-(2.0**99), 2.0**99, width=32)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=NUMBERS)
LIVELY = st.floats(0.125, 1000.0, width=32)


def one(output: np.ndarray, reference: np.ndarray, step: float | None = None, task: str | None = None):
    return compare_outputs(["y"], [output], [reference], [step], task)[0]  # type: ignore[arg-type]


@given(MATRICES)
def test_parity_is_perfect_when_outputs_are_identical(matrix: np.ndarray) -> None:
    parity = one(matrix, matrix.copy(), step=0.5, task="classification")
    assert parity.sqnr_db == SQNR_CEILING_DB
    assert (parity.max_abs_error, parity.mean_abs_error, parity.max_steps, parity.mean_steps) == (0, 0, 0, 0)
    assert (parity.exact, parity.within_one_step) == (1.0, 1.0)
    assert parity.cosine == pytest.approx(1.0)
    assert parity.top1_agreement in (1.0, None)


@given(MATRICES, st.randoms(use_true_random=False))
def test_parity_figures_are_finite_and_in_range(matrix: np.ndarray, random: object) -> None:
    other = np.roll(matrix, 1)
    parity = one(other, matrix, step=0.1, task="classification")
    assert math.isfinite(parity.max_abs_error)
    assert 0 <= parity.mean_abs_error <= parity.max_abs_error
    assert abs(parity.sqnr_db) <= SQNR_CEILING_DB
    assert -1 <= parity.cosine <= 1
    assert 0 <= parity.exact <= parity.within_one_step <= 1


@given(arrays.arrays(np.float64, (3, 4), elements=LIVELY), st.sampled_from([1e-60, 1e-42, 1e-3, 1e6, 1e60]))
def test_sqnr_and_cosine_do_not_depend_on_the_outputs_scale(matrix: np.ndarray, scale: float) -> None:
    noisy = matrix * 1.01 + 0.003
    assert sqnr_db(noisy * scale, matrix * scale) == pytest.approx(sqnr_db(noisy, matrix), abs=1e-6)
    assert cosine(noisy * scale, matrix * scale) == pytest.approx(cosine(noisy, matrix), abs=1e-9)


@given(arrays.arrays(np.float64, (4, 5), elements=LIVELY), st.floats(0.5, 90.0))
def test_sqnr_finds_the_noise_that_was_added(reference: np.ndarray, decibels: float) -> None:
    noise = np.ones_like(reference)
    noise *= np.sqrt(np.sum(reference**2) / np.sum(noise**2) / 10 ** (decibels / 10))
    assert sqnr_db(reference + noise, reference) == pytest.approx(decibels, abs=1e-4)


@given(
    arrays.arrays(np.int64, (2, 8), elements=st.integers(-128, 127)),
    arrays.arrays(np.int64, (2, 8), elements=st.integers(-3, 3)),
    st.floats(1e-4, 10.0),
)
def test_steps_count_integers_when_outputs_lie_on_the_grid(grid: np.ndarray, off: np.ndarray, step: float) -> None:
    parity = one(((grid + off) * step).astype(np.float32), (grid * step).astype(np.float32), step)
    assert parity.max_steps == pytest.approx(np.abs(off).max(), abs=1e-3)
    assert parity.mean_steps == pytest.approx(np.abs(off).mean(), abs=1e-3)
    assert parity.exact == pytest.approx(np.mean(off == 0))
    assert parity.within_one_step == pytest.approx(np.mean(np.abs(off) <= 1))


def test_parity_of_a_worked_example() -> None:
    parity = one(np.array([[3.0, 0.5], [1.0, 4.0]]), np.array([[3.0, 0.0], [4.0, 3.0]]), None, "classification")
    assert parity.max_abs_error == 3.0
    assert parity.mean_abs_error == (0 + 0.5 + 3 + 1) / 4
    assert parity.sqnr_db == pytest.approx(10 * np.log10(34 / 10.25))
    assert parity.cosine == pytest.approx(25 / np.sqrt(26.25 * 34))
    assert parity.top1_agreement == 0.5
    assert parity.exact == 0.25
    assert (parity.max_steps, parity.mean_steps, parity.within_one_step) == (None, None, None)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_top1_is_unknown_when_an_output_holds_no_classes(shape: tuple[int, ...]) -> None:
    assert one(np.ones(shape), np.ones(shape), task="classification").top1_agreement is None


def test_top1_is_unknown_when_the_task_is_not_classification() -> None:
    assert one(np.eye(3), np.eye(3)).top1_agreement is None
    assert top1_agreement(np.eye(3), np.eye(3)) == 1.0


def test_sqnr_is_the_floor_when_the_reference_is_silent() -> None:
    assert sqnr_db(np.array([1e-9]), np.array([0.0])) == -SQNR_CEILING_DB
    assert cosine(np.array([1e-9]), np.array([0.0])) == 0.0


def test_denormal_outputs_are_exact_when_one_float32_spacing_apart() -> None:
    reference = np.full((2, 4), 1e-42, np.float32)
    output = np.nextafter(reference, np.float32(1))
    assert np.all(output != reference)
    assert one(output, reference).sqnr_db == SQNR_CEILING_DB


def test_denormal_outputs_are_wrong_when_flushed_to_zero() -> None:
    reference = np.full((2, 4), 1e-42, np.float32)
    parity = one(np.zeros_like(reference), reference)
    assert parity.sqnr_db == pytest.approx(0.0)
    assert parity.exact == 0.0


def test_infinities_are_equal_when_both_sides_have_them() -> None:
    masked = np.array([[1.0, -np.inf], [-np.inf, 2.0]])
    parity = one(masked, masked.copy(), task="classification")
    assert parity.sqnr_db == SQNR_CEILING_DB
    assert parity.exact == 1.0


@pytest.mark.parametrize(
    ("output", "reference", "words"),
    [
        (np.nan, 1.0, r"the artifact gives 1 NaN and 0 infinite values, in 1 of 2 samples \(the first is sample 1\)"),
        (np.inf, 1.0, "the artifact gives 0 NaN and 1 infinite"),
        (np.inf, -np.inf, "the artifact gives 0 NaN and 1 infinite"),
        (1.0, np.nan, "the reference gives 1 NaN"),
        (np.nan, np.nan, "1 NaN"),
    ],
)
def test_incomparable_names_values_without_a_distance(output: float, reference: float, words: str) -> None:
    a, b = np.array([[1.0, 2.0], [3.0, output]]), np.array([[1.0, 2.0], [3.0, reference]])
    with pytest.raises(DataError, match=words):
        one(a, b)


def test_incomparable_names_shapes_and_counts() -> None:
    assert incomparable(["y"], [np.ones((2, 3))], [np.ones((2, 4))]) == (
        "output 'y': expected shape (2, 4), received (2, 3)"
    )
    assert incomparable(["y"], [], [np.ones(2)]) == "expected 1 outputs, received 0"
    assert incomparable(["y"], [np.ones(2)], [np.zeros(2)]) is None


def test_outputs_of_integers_and_flags_are_compared_without_overflow() -> None:
    parity = one(np.array([[-128, 127]], np.int8), np.array([[127, -128]], np.int8))
    assert parity.max_abs_error == 255.0
    assert one(np.array([True]), np.array([False])).max_abs_error == 1.0


def test_outputs_of_complex_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="complex64"):
        one(np.ones(2, np.complex64), np.ones(2, np.complex64))
