"""Which result stands for which, and where a comparison says that most is lost."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.contracts import TracedValue
from edgekit.errors import DataError
from edgekit.verify.alignment import align
from edgekit.verify.operators import HALF_DB, compare_operators

RANDOM = np.random.default_rng(5)
X, BIASED, RECTIFIED, POOLED = (RANDOM.normal(size=shape) for shape in ((1, 4, 8), (1, 4, 8), (1, 4, 8), (1, 4, 1)))


def value(name, array, *reads, kind="conv", origin=None, layer=None):
    return TracedValue(
        name=name, origin=origin or name, type=kind, layer=layer, value=np.asarray(array, np.float32), reads=reads
    )


PROGRAM = [
    value("x", X, kind="input"),
    value("conv", X * 3, "x", layer="stem"),
    value("bias", BIASED, "conv", kind="add", layer="stem"),
    value("relu", RECTIFIED, "bias", kind="relu"),
    value("mean", POOLED, "relu", kind="mean"),
]


class Recorded:
    """A run that was recorded before."""

    inputs = outputs = ()

    def __init__(self, *runs):
        self._runs = list(runs)

    def trace(self, inputs):
        return tuple(self._runs[int(inputs[0])])

    def run(self, inputs):
        return ()


def compare(*runs, programs=None):
    places = [([np.int32(place)], [np.int32(place)]) for place in range(len(runs))]
    return compare_operators(Recorded(*(programs or [PROGRAM] * len(runs))), Recorded(*runs), places)


def named(artifact):
    return [None if match is None else (PROGRAM[match.place].name, match.how) for match in align(PROGRAM, artifact)]


def test_named_result_stands_for_the_end_of_what_was_fused_into_it():
    artifact = [value("conv_half", BIASED, origin="conv"), value("relu", RECTIFIED, "conv_half")]
    assert named(artifact) == [("bias", "name"), ("relu", "name")]
    whole = [value("conv", X * 3), value("bias", BIASED, "conv"), value("relu", RECTIFIED, "bias")]
    assert named(whole) == [("conv", "name"), ("bias", "name"), ("relu", "name")]


def test_renamed_result_is_found_between_its_neighbours():
    artifact = [
        value("conv", X * 3),
        value("fused_7", RECTIFIED, "conv", kind="clip"),
        value("mean", POOLED[..., 0], "fused_7"),
    ]
    assert named(artifact) == [("conv", "name"), ("relu", "guess"), ("mean", "name")]


def test_renamed_result_prefers_the_operation_that_is_called_alike():
    noisy = RECTIFIED + 0.5 * (BIASED - RECTIFIED) + 0.01  # closer to the wrong one
    artifact = [value("conv", X * 3), value("relu_7", noisy, "conv", kind="relu6"), value("mean", POOLED, "relu_7")]
    assert named(artifact)[1] == ("relu", "place")


def test_result_of_another_shape_stands_for_nothing():
    artifact = [value("conv", np.zeros((2, 7))), value("other", np.zeros(3), "conv")]
    assert named(artifact) == [None, None]
    found = compare(artifact)
    assert [item.beside for item in found.operators] == [None, None] and found.steepest is None


def test_result_that_is_carried_times_a_constant_is_divided_by_it():
    found = compare([value("conv", X * 3 * 0.01), value("relu", RECTIFIED, "conv")])
    first, second = found.operators
    assert first.factor == pytest.approx(0.01) and first.sqnr_db is not None and first.sqnr_db > 100
    assert second.factor == 1.0


def test_noisy_result_that_is_carried_times_a_constant_is_divided_by_it():
    noisy = (X * 3 + 0.3 * RANDOM.normal(size=X.shape)) * 18.5
    (found,) = compare([value("conv", noisy)]).operators
    assert found.factor == pytest.approx(18.5, rel=0.05) and found.sqnr_db is not None and 15 < found.sqnr_db < 25


def test_step_on_the_way_to_a_named_result_stands_for_nothing():
    # relu as gate * input: neither factor is in the program, and the product is right
    gate = [value("clip_0", X, "conv", kind="clip"), value("gate", X - 0.5, "clip_0", kind="sigmoid_hard")]
    found = compare([value("conv", X * 3), *gate, value("relu", RECTIFIED, "conv", "gate", kind="mul")])
    assert [item.beside for item in found.operators] == ["conv", None, None, "relu"] and found.steepest is None


def test_unnamed_result_that_ruins_what_follows_keeps_its_loss():
    ruined = RANDOM.normal(size=X.shape)
    found = compare([value("conv", X * 3), value("gate", ruined, "conv", kind="clip"), value("relu", ruined, "gate")])
    assert found.operators[1].matched == "guess" and found.steepest == "gate"


def test_wrong_result_is_no_multiple_of_the_right_one():
    (found,) = compare([value("relu", RECTIFIED + 0.7 * X)]).operators
    assert found.factor == 1.0 and found.sqnr_db is not None and found.sqnr_db < 10


def test_steepest_is_the_operation_that_loses_most_by_itself():
    half = (X * 3).astype(np.float16)
    worse = RECTIFIED + 0.03 * RANDOM.normal(size=RECTIFIED.shape)
    found = compare(
        [value("conv", half), value("relu", worse, "conv"), value("mean", POOLED + 0.03 * POOLED.std(), "relu")]
    )
    assert found.steepest == "relu"
    lost = {item.name: item.lost_db for item in found.operators}
    assert lost["conv"] == 0 and 25 < lost["relu"] < HALF_DB and lost["mean"] < 10
    assert next(item for item in found.operators if item.name == "conv").layer == "stem"


def test_first_overflow_is_named_before_every_loss():
    infinite = np.where(X > 1, np.inf, X * 3)
    found = compare([value("conv", infinite), value("relu", RECTIFIED + 1, "conv")])
    assert found.steepest == "conv" and found.operators[0].overflows
    assert found.operators[0].sqnr_db is None and found.operators[0].max_abs_error is None


def test_infinity_on_both_sides_is_no_overflow():
    masked = np.where(X > 1, -np.inf, X)
    found = compare([value("conv", masked)], programs=[[value("conv", masked)]])
    assert not found.operators[0].overflows and found.operators[0].max_abs_error == 0 and found.steepest is None


def test_distances_are_taken_over_all_samples():
    programs = [[value("conv", X)], [value("conv", X)]]
    one, both = (
        compare([value("conv", X + 0.1)], programs=programs[:1]),
        compare([value("conv", X + 0.1)], [value("conv", X + 0.3)], programs=programs),
    )
    assert both.samples == 2 and both.operators[0].max_abs_error == pytest.approx(0.3, rel=1e-5)
    assert one.operators[0].sqnr_db - both.operators[0].sqnr_db == pytest.approx(10 * np.log10(5), rel=1e-3)


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="at least one sample"):
        compare()
