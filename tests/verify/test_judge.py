from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import RecipeError
from edgekit.recipe.schema import OutputTolerance, VerifySection
from edgekit.records import OutputParity, Parity
from edgekit.verify.judge import Distances, judge, not_run
from edgekit.verify.parity import compare_outputs

PERFECT = compare_outputs(["logits"], [np.eye(4)], [np.eye(4)], [0.1], "classification")[0]


def at(decibels: float, **changes: float | None) -> OutputParity:
    return replace(PERFECT, sqnr_db=decibels, **changes)


def verdict(
    precision: str,
    limits: VerifySection | None = None,
    *,
    source: OutputParity = PERFECT,
    program: OutputParity = PERFECT,
    program_source: OutputParity = PERFECT,
    accuracy: float | None = 0.9,
    program_precision: str | None = None,
) -> Parity:
    distances = Distances(
        samples=8,
        versus_source=(source,),
        versus_program=(program,),
        program_versus_source=(program_source,),
        accuracy=accuracy,
        source_accuracy=None if accuracy is None else 0.92,
    )
    return judge(
        distances,
        limits or VerifySection(),
        precision=precision,  # type: ignore[arg-type]
        program_precision=program_precision or precision,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("precision", "least"), [("fp32", 90.0), ("fp16", 40.0)])
def test_float_artifact_is_held_to_its_own_floor(precision: str, least: float) -> None:
    generous = VerifySection(min_sqnr_db=1.0)  # of quantized artifacts: does not loosen the float ones
    assert verdict(precision, generous, source=at(least)).status == "pass"
    failed = verdict(precision, generous, source=at(least - 0.1))
    assert failed.status == "fail"
    assert f"below {least:g} dB" in (failed.reason or "")


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "w8", "w4", "int16x8"])
def test_quantized_artifact_is_held_to_ten_decibels_by_default(precision: str) -> None:
    assert verdict(precision, source=at(10.0), program_source=at(10.0)).status == "pass"
    assert verdict(precision, source=at(9.9), program_source=at(9.9)).status == "fail"


def test_quantized_artifact_is_held_to_the_recipes_floor() -> None:
    limits = VerifySection(min_sqnr_db=20.0)
    assert verdict("int8", limits, source=at(20.0), program_source=at(20.0)).status == "pass"
    assert "below 20 dB" in (verdict("int8", limits, source=at(19.0), program_source=at(19.0)).reason or "")


def test_quantized_artifact_is_held_to_accuracy_alone_when_that_is_the_limit() -> None:
    limits = VerifySection(max_accuracy_drop=0.02)
    assert verdict("int8", limits, source=at(5.0), program_source=at(5.0)).status == "pass"
    failed = verdict("int8", VerifySection(max_accuracy_drop=0.01), source=at(5.0), program_source=at(5.0))
    assert "accuracy fell by 0.0200 (from 0.9200 to 0.9000), more than 0.01" in (failed.reason or "")


def test_accuracy_limit_fails_when_accuracy_cannot_be_measured() -> None:
    failed = verdict("int8", VerifySection(max_accuracy_drop=0.01), accuracy=None)
    assert failed.status == "fail"
    assert "no class labels" in (failed.reason or "")


def test_lowering_fails_when_it_adds_more_noise_than_quantization() -> None:
    limits = VerifySection(min_sqnr_db=5.0)
    kept = verdict("int8", limits, source=at(25.1), program=at(25.0), program_source=at(28.0))
    lost = verdict("int8", limits, source=at(20.2), program=at(21.0), program_source=at(28.0))
    assert kept.status == "pass"
    assert "lowering added more noise" in (lost.reason or "")


def test_lowering_may_add_the_noise_of_activations_when_their_scales_are_chosen_at_run_time() -> None:
    held = verdict("int8-dynamic", source=at(34.7), program=at(35.0), program_source=at(44.6))
    lost = verdict("int8-dynamic", source=at(34.5), program=at(35.0), program_source=at(44.6))
    assert held.status == "pass"
    assert "lowering added more noise" in (lost.reason or "")


def test_lowering_passes_when_it_is_within_half_precision_of_its_program() -> None:
    assert verdict("w8", source=at(41.0), program=at(41.0), program_source=at(300.0)).status == "pass"


def test_lowering_is_not_judged_when_the_program_has_another_precision() -> None:
    found = verdict("int16x8", program_precision="fp32", source=at(35.0), program=at(35.0), program_source=at(300.0))
    assert found.status == "pass"


def test_steps_are_limited_when_the_recipe_says_so() -> None:
    limits = VerifySection(max_steps=1)
    assert verdict("int8", limits, program=at(50.0, max_steps=1.004)).status == "pass"
    assert "2.00 quantization steps" in (verdict("int8", limits, program=at(50.0, max_steps=2.0)).reason or "")
    assert verdict("int8", limits, program=at(50.0, max_steps=None)).status == "pass"
    assert verdict("fp16", limits, program=at(50.0, max_steps=9.0)).status == "pass"


def test_own_tolerance_of_an_output_replaces_its_floor() -> None:
    limits = VerifySection(outputs={"logits": OutputTolerance(min_sqnr_db=60.0, max_abs_error=0.5)})
    assert verdict("fp32", limits, source=at(60.0, max_abs_error=0.5)).status == "pass"
    assert "below 60 dB" in (verdict("fp32", limits, source=at(59.0)).reason or "")
    assert "above 0.5" in (verdict("fp32", limits, source=at(70.0, max_abs_error=0.6)).reason or "")


@pytest.mark.parametrize(("agreement", "words"), [(0.8, "0.8000, below 0.9"), (None, "holds no classes")])
def test_own_tolerance_limits_top1_agreement(agreement: float | None, words: str) -> None:
    limits = VerifySection(outputs={"logits": OutputTolerance(min_top1_agreement=0.9)})
    assert words in (verdict("fp32", limits, source=at(100.0, top1_agreement=agreement)).reason or "")


def test_tolerance_of_an_unknown_output_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"verify\.outputs\.logit: .*Did you mean 'logits'"):
        verdict("fp32", VerifySection(outputs={"logit": OutputTolerance()}))


def test_every_broken_limit_is_named() -> None:
    limits = VerifySection(min_sqnr_db=20, max_steps=1, max_accuracy_drop=0.001)
    reason = verdict("int8", limits, source=at(15.0), program=at(16.0, max_steps=3.0), program_source=at(30.0)).reason
    assert reason is not None
    assert reason.count(";") == 3


def test_not_run_is_neither_passed_nor_failed() -> None:
    parity = not_run("Core ML runs on Apple devices only")
    assert (parity.status, parity.samples, parity.versus_source) == ("not run", 0, ())


@given(
    st.sampled_from(["fp32", "fp16", "int8", "w4", "int16x8"]),
    st.floats(0, 120),
    st.floats(0, 120),
    st.floats(0, 60),
    st.none() | st.floats(0, 100),
)
def test_an_artifact_that_is_closer_is_never_judged_worse(
    precision: str, source: float, own: float, better: float, least: float | None
) -> None:
    limits = VerifySection(min_sqnr_db=least)
    near = verdict(precision, limits, source=at(source + better), program=at(source + better), program_source=at(own))
    far = verdict(precision, limits, source=at(source), program=at(source), program_source=at(own))
    assert near.status == "pass" or far.status == "fail"
    assert (far.reason is None) == (far.status == "pass")
