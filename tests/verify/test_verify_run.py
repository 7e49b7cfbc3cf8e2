from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_sessions
import numpy as np
import pytest

from edgekit.errors import ArtifactError, DataError, RecipeError
from edgekit.process import run_child
from edgekit.recipe.schema import OutputTolerance, VerifySection
from edgekit.records import Program, TensorSpec
from edgekit.verify import VERIFY_ENTRY, VerifyRequest, VerifyResult
from edgekit.verify.accuracy import top1_accuracy
from edgekit.verify.reference import load_reference
from edgekit.verify.run import verify_artifact

SAMPLES = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
TESTS = Path(__file__).resolve().parents[1]


def make_request(folder: Path, behaviour: dict[str, Any] | None = None, **changes: Any) -> VerifyRequest:
    reference = folder / "reference.npz"
    labels = SAMPLES.argmax(axis=1)
    labels[0] = (labels[0] + 1) % 4  # the source is wrong once
    np.savez(reference, input_0=SAMPLES, label=labels, source_output_0=SAMPLES * 2, program_output_0=SAMPLES * 2)
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 4))
    program = Program(
        path=folder / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(spec,),
        outputs=(replace(spec, name="logits"),),
        reference=reference,
        calibration=None,
        output_steps=(None,),
        task="classification",
    )
    request = VerifyRequest(
        artifact=fake_sessions.write_artifact(folder / "model.json", **{"gain": 2.0, **(behaviour or {})}),
        precision="fp32",
        dynamic_batch=False,
        open_session=fake_sessions.OPEN,
        program=program,
        verify=VerifySection(),
        outputs=folder / "kept" / "outputs.npz",
    )
    return replace(request, **changes)


def test_verify_passes_and_keeps_outputs_when_the_artifact_agrees(tmp_path: Path) -> None:
    result = verify_artifact(make_request(tmp_path))
    assert (result.parity.status, result.parity.reason, result.parity.samples) == ("pass", None, 40)
    assert result.parity.versus_source[0].name == "logits"
    assert result.parity.versus_program[0].sqnr_db == 300.0
    assert result.parity.accuracy == 39 / 40
    assert result.parity.accuracy_drop == 0.0
    assert result.runtime.name == "fake"
    with np.load(tmp_path / "kept" / "outputs.npz") as file:
        np.testing.assert_array_equal(file["output_0"], SAMPLES * 2)


def test_verify_fails_when_outputs_differ(tmp_path: Path) -> None:
    parity = verify_artifact(make_request(tmp_path, {"gain": 2.001})).parity
    assert parity.status == "fail"
    assert "SQNR against the source is 66.0 dB, below 90 dB" in (parity.reason or "")


def test_verify_fails_in_words_when_an_output_is_nan(tmp_path: Path) -> None:
    parity = verify_artifact(make_request(tmp_path, {"nan_in": 7})).parity
    assert parity.status == "fail"
    assert "the artifact gives 1 NaN and 0 infinite values, in 1 of 40 samples (the first is sample 7)" in (
        parity.reason or ""
    )


def test_verify_fails_when_runs_are_not_independent(tmp_path: Path) -> None:
    parity = verify_artifact(make_request(tmp_path, {"stateful": 1})).parity
    assert parity.status == "fail"
    assert "keeps state between runs" in (parity.reason or "") or "SQNR" in (parity.reason or "")


def test_verify_names_state_even_when_the_reference_was_made_with_it(tmp_path: Path) -> None:
    request = make_request(tmp_path, {"stateful": 1})
    carried = SAMPLES * 2 + np.arange(40, dtype=np.float32)[:, None]
    np.savez(request.program.reference, input_0=SAMPLES, source_output_0=carried, program_output_0=carried)
    assert "keeps state between runs" in (verify_artifact(request).parity.reason or "")


def test_verify_fails_in_words_when_shapes_differ(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    wide = np.ones((40, 5), np.float32)
    np.savez(request.program.reference, input_0=SAMPLES, source_output_0=wide, program_output_0=wide)
    parity = verify_artifact(request).parity
    assert (parity.status, parity.versus_source) == ("fail", ())
    assert "expected shape (40, 5), received (40, 4)" in (parity.reason or "")


@pytest.mark.parametrize(("dynamic", "sizes"), [(False, {1}), (True, {1, 16, 7})])
def test_verify_feeds_several_batch_sizes_when_the_batch_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamic: bool, sizes: set[int]
) -> None:
    opened: list[fake_sessions.FakeSession] = []

    def remember(path: Path, num_threads: int) -> fake_sessions.FakeSession:
        opened.append(fake_sessions.open_session(path, num_threads))
        return opened[-1]

    monkeypatch.setattr(fake_sessions, "remember", remember, raising=False)
    request = make_request(tmp_path, dynamic_batch=dynamic, open_session="fake_sessions:remember")
    assert verify_artifact(request).parity.status == "pass"
    assert set(opened[0].batches) == sizes
    assert opened[0].closed


def test_verify_judges_by_the_recipes_limits(tmp_path: Path) -> None:
    loose = VerifySection(outputs={"logits": OutputTolerance(min_sqnr_db=60)})
    assert verify_artifact(make_request(tmp_path, {"gain": 2.001}, verify=loose)).parity.status == "pass"


def test_verify_refuses_a_tolerance_of_an_unknown_output_before_running(tmp_path: Path) -> None:
    limits = VerifySection(outputs={"logit": OutputTolerance()})
    with pytest.raises(RecipeError, match="Did you mean 'logits'"):
        verify_artifact(make_request(tmp_path, {"abort": 1}, verify=limits))


def test_verify_has_no_accuracy_when_there_are_no_labels(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    np.savez(request.program.reference, input_0=SAMPLES, source_output_0=SAMPLES * 2, program_output_0=SAMPLES * 2)
    parity = verify_artifact(request).parity
    assert (parity.status, parity.accuracy, parity.accuracy_drop) == ("pass", None, None)


def test_verify_result_survives_the_child_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    request = make_request(tmp_path)
    result = run_child(VERIFY_ENTRY, request, VerifyResult, stage="verify", log=tmp_path / "log")
    assert result == verify_artifact(request)


def test_outputs_file_is_the_same_bytes_when_verified_again(tmp_path: Path) -> None:
    request = make_request(tmp_path)
    assert request.outputs is not None
    verify_artifact(request)
    first = request.outputs.read_bytes()
    verify_artifact(request)
    assert request.outputs.read_bytes() == first


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input_0": SAMPLES}, "source_output_0 and program_output_0; received input_0"),
        (
            {"input_0": SAMPLES, "source_output_0": SAMPLES, "program_output_0": SAMPLES[:3]},
            r"as many samples in every array, at least one; received \[3, 40\]",
        ),
        ({"input_0": SAMPLES[:0], "source_output_0": SAMPLES[:0], "program_output_0": SAMPLES[:0]}, r"received \[0\]"),
    ],
)
def test_reference_error_says_what_is_missing(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=words):
        load_reference(path)


def test_reference_error_names_the_file_when_it_is_cut_off(tmp_path: Path) -> None:
    path = make_request(tmp_path).program.reference
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"readable \.npz file at .*reference\.npz"):
        load_reference(path)


def test_reference_error_is_clear_when_it_is_a_bare_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SAMPLES)
    with pytest.raises(ArtifactError, match="one bare array"):
        load_reference(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.ones((3, 2)), np.array([0, 1]), r"\(3, 2\) and \(2,\)"),
        (np.ones((2, 2)), np.array([0, 2]), "from 0 to 1; received 0 to 2"),
        (np.ones((2, 2)), np.array([-1, 1]), "from 0 to 1; received -1 to 1"),
        (np.ones((0, 2)), np.ones(0, int), "N >= 1"),
    ],
)
def test_accuracy_refuses_labels_that_do_not_belong(logits: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        top1_accuracy(logits, labels)
