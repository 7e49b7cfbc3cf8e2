"""coremltools' own int8, calibrated without a Mac."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts.tiny_programs import tiny_program

from edgekit.errors import DataError, UnsupportedError
from edgekit.recipe.weights import CompressionRule
from edgekit.records import ExportRequest, Program, WeightCompression
from edgekit.store.atomic import digest_path
from edgekit.verify.parity import sqnr_db

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from formats.coreml.evaluator.mil_programs import mb, program_of, save

    from edgekit.formats.coreml.calibrate import activation_ranges
    from edgekit.formats.coreml.compress.plan import plan_weights
    from edgekit.formats.coreml.export import export
    from edgekit.formats.coreml.inspect import inspect
    from edgekit.formats.coreml.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def _export(program: Program, folder: Path):
    folder.mkdir()
    request = ExportRequest(
        program=program,
        format="coreml",
        precision="int8",
        output=folder / "model.mlpackage",
        work_dir=folder,
        compression=WeightCompression(scheme="coremltools", smallest=64),
    )
    return request.output, export(request)


def test_package_computes_in_integers_and_stays_near_the_model(tmp_path: Path) -> None:
    program = tiny_program("cnn", "fp32")
    path, result = _export(program, tmp_path / "one")
    computing = [item for item in inspect(path).operators if item.type in ("conv", "linear", "add")]
    assert {item.compute_dtype for item in computing} == {"int8"}
    assert {item.weight_dtype for item in computing if item.weight_bytes} == {"int8"}
    arrays = np.load(program.reference)
    with open_session(path, 1) as session:
        found = np.concatenate([session.run([image[None]])[0] for image in arrays["input_0"]])
    assert 20 < sqnr_db(found.astype(np.float64), arrays["source_output_0"].astype(np.float64)) < 60
    assert any("16 calibration samples" in note for note in result.notes)
    again, _ = _export(program, tmp_path / "two")
    assert digest_path(again) == digest_path(path)


def test_missing_calibration_samples_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs calibration samples"):
        _export(replace(tiny_program("cnn", "fp32"), calibration=None), tmp_path / "none")


def test_ranges_are_those_of_all_samples_not_of_the_last(tmp_path: Path) -> None:
    path = save(
        program_of(lambda x: mb.mul(x=x, y=2.0, name="doubled"), {"x": np.zeros(2, np.float32)}, 17), 17, tmp_path
    )
    ranges = activation_ranges(path, [{"x": np.float32([-3, 1])}, {"x": np.float32([0, 5])}, {"x": np.float32([0, 0])}])
    assert ranges["x"] == {"rmin": -3, "rmax": 5} and ranges["doubled"] == {"rmin": -6, "rmax": 10}


def test_what_is_joined_shares_one_range(tmp_path: Path) -> None:
    def build(x):
        small, large = mb.mul(x=x, y=0.1, name="small"), mb.mul(x=x, y=10.0, name="large")
        joined = mb.concat(values=[small, large], axis=0, name="joined")
        return mb.concat(values=[joined, mb.mul(x=x, y=-20.0, name="third")], axis=0, name="all")

    path = save(program_of(build, {"x": np.zeros(1, np.float32)}, 17), 17, tmp_path)
    ranges = activation_ranges(path, [{"x": np.float32([1])}])
    assert {tuple(ranges[name].values()) for name in ("small", "large", "joined", "third", "all")} == {(-20, 10)}
    assert tuple(ranges["x"].values()) == (1, 1)


def test_infinite_activation_is_refused_by_its_operation(tmp_path: Path) -> None:
    path = save(program_of(lambda x: mb.exp(x=x, name="grown"), {"x": np.zeros(1, np.float32)}, 17), 17, tmp_path)
    with pytest.raises(UnsupportedError, match="'grown' is infinite or NaN on a calibration sample"):
        activation_ranges(path, [{"x": np.float32([1000])}])


def test_scheme_is_made_of_the_float_program_and_cannot_skip_layers() -> None:
    plan = plan_weights(CompressionRule(scheme="coremltools"), "int8", "int8", None)
    assert plan.program == "fp32" and plan.name == "coremltools"
    with pytest.raises(UnsupportedError, match="picks what it quantizes by operation"):
        plan_weights(CompressionRule(scheme="coremltools", skip=("head",)), "int8", "int8", None)
