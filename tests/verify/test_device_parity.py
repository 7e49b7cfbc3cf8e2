"""Kernels of two machines: equal up to rounding, or a finding."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.records import Quantization, TensorSpec
from edgekit.verify.device_parity import Sides, compare_sides, parity_notes, stack_samples

SPECS = (TensorSpec(name="logits", dtype="float32", shape=(1, 8)),)
STEPPED = (
    TensorSpec(name="logits", dtype="int8", shape=(1, 8), quantization=Quantization(scale=(0.5,), zero_point=(0,))),
)
HOST = np.linspace(-3, 3, 16, dtype=np.float32).reshape(2, 8)


def noise(db: float) -> np.ndarray:
    draw = np.random.default_rng(0).normal(size=HOST.shape)
    return (draw * np.linalg.norm(HOST) / np.linalg.norm(draw) * 10 ** (-db / 20)).astype(np.float32)


def test_samples_become_one_array_an_output() -> None:
    one, two = np.zeros((1, 3)), np.ones((1, 3))
    (stacked,) = stack_samples([(one,), (two,)])
    assert stacked.shape == (2, 3)
    assert stacked[1].tolist() == [1, 1, 1]


def test_identical_outputs_pass_with_no_note() -> None:
    found = compare_sides(SPECS, Sides(device=(HOST,), host=(HOST,)))
    assert (found.status, found.samples, found.versus_source) == ("pass", 2, ())
    assert found.versus_host[0].max_abs_error == 0
    assert list(parity_notes(found, "the phone")) == []


@pytest.mark.parametrize(("guest_db", "status"), [(100, "pass"), (60, "fail")])
def test_float_kernels_are_held_to_rounding_when_the_model_itself_is_met(guest_db: float, status: str) -> None:
    found = compare_sides(SPECS, Sides(device=(HOST + noise(guest_db),), host=(HOST,), source=(HOST,)))
    assert found.status == status
    assert found.versus_source[0].sqnr_db == pytest.approx(guest_db, abs=1)


@pytest.mark.parametrize(("guest_db", "status"), [(50, "pass"), (30, "pass"), (20, "fail")])
def test_quantized_kernels_may_differ_by_no_more_than_they_differ_from_the_model(guest_db: float, status: str) -> None:
    source = HOST + noise(25)
    found = compare_sides(SPECS, Sides(device=(HOST + noise(guest_db),), host=(HOST,), source=(source,)))
    assert found.status == status
    notes = list(parity_notes(found, "the phone"))
    assert bool(notes) == (status == "fail")
    if notes:
        assert notes[0].startswith(
            "finding: the phone's kernels do not compute what this machine's do: output 'logits'"
        )


@pytest.mark.parametrize(("guest_db", "status"), [(45, "pass"), (35, "fail")])
def test_forty_decibels_are_asked_for_when_there_is_no_reference(guest_db: float, status: str) -> None:
    assert compare_sides(SPECS, Sides(device=(HOST + noise(guest_db),), host=(HOST,))).status == status


def test_nan_on_the_guest_is_a_finding() -> None:
    broken = HOST.copy()
    broken[1, 2] = np.nan
    found = compare_sides(SPECS, Sides(device=(broken,), host=(HOST,), source=(HOST,)))
    assert found.status == "fail"
    assert "1 NaN" in str(found.reason)


def test_step_of_difference_is_told_though_it_passes() -> None:
    host = np.round(HOST * 2) / 2 * 100
    guest = host.copy()
    guest[0, 0] += 0.5
    found = compare_sides(STEPPED, Sides(device=(guest,), host=(host,)))
    assert found.status == "pass"
    assert list(parity_notes(found, "the phone")) == [
        "the phone's kernels and this machine's round output 'logits' differently, by up to 1 quantization steps"
    ]


def test_device_is_held_to_float16_when_it_computes_so() -> None:
    sides = Sides(device=(HOST + noise(50),), host=(HOST,), source=(HOST,))
    assert compare_sides(SPECS, sides).status == "fail"
    assert compare_sides(SPECS, sides, rounding_db=40.0).status == "pass"


def test_distance_from_the_model_is_told_when_the_artifact_does_not_run_here() -> None:
    found = compare_sides(SPECS, Sides(device=(HOST + noise(50),), host=None, source=(HOST,)))
    assert (found.status, found.versus_host) == ("not run", ())
    assert found.versus_source[0].sqnr_db == pytest.approx(50, abs=1)
