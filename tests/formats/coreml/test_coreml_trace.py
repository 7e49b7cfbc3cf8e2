"""Results of a package beside those of the program that it was made of."""

from __future__ import annotations

import json
import shutil
import warnings
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from contracts.tiny_artifacts import tiny_artifact
from rich.console import Console

from edgekit.cli.main import run
from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.pipeline.compare import CompareRequest, compare_artifacts
from edgekit.pipeline.operands import find_operands
from edgekit.report.tables import operator_distance_table
from edgekit.verify.operators import compare_operators

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from edgekit.formats.coreml.package import MODEL, read_package
    from edgekit.formats.coreml.trace import open_program_trace, open_trace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def _samples(program, count: int = 2):
    arrays = np.load(program.reference)
    one = [[arrays[f"input_{i}"][place : place + 1] for i in range(len(program.inputs))] for place in range(count)]
    return [(inputs, inputs) for inputs in one]


def _compare(path: Path, program, compute="declared"):
    return compare_operators(open_program_trace(program.path), open_trace(path, compute), _samples(program))


CELLS = [("cnn", "fp32", 100), ("cnn", "fp16", 45), ("attention", "fp16", 45), ("cnn", "int8", 20)]


@pytest.mark.parametrize(("model", "precision", "least_db"), CELLS)
def test_every_result_finds_what_it_stands_for(model: str, precision: str, least_db: float) -> None:
    artifact = tiny_artifact("coreml", model, precision)
    found = _compare(artifact.path, artifact.program)
    alone = [item.name for item in found.operators if item.beside is None]
    assert len(alone) <= 0.15 * len(found.operators), alone
    assert min(item.sqnr_db for item in found.operators if item.beside is not None) > least_db
    assert {"stem", "head"} <= {item.layer for item in found.operators} or model != "cnn"


def _changed(path: Path, folder: Path, kind: str, other: str) -> tuple[Path, str]:
    """A copy of a package in which one operation is of another type; the name of its result."""
    copied = folder / "changed.mlpackage"
    shutil.copytree(path, copied)
    specification = read_package(copied)
    main_function = specification.mlProgram.functions["main"]
    block = main_function.block_specializations[main_function.opset]
    operation = next(operation for operation in block.operations if operation.type == kind)
    operation.type = other
    (copied / MODEL).write_bytes(specification.SerializeToString())
    return copied, operation.outputs[0].name


def test_operation_that_computes_something_else_is_the_steepest(tmp_path: Path) -> None:
    artifact = tiny_artifact("coreml", "cnn", "fp16")
    path, name = _changed(artifact.path, tmp_path, "relu", "tanh")
    found = _compare(path, artifact.program)
    assert found.steepest == name
    wrong = next(item for item in found.operators if item.name == name)
    assert wrong.beside == "relu" and wrong.lost_db > 20
    before = found.operators[: found.operators.index(wrong)]
    assert all(item.sqnr_db > 50 for item in before if item.sqnr_db is not None)
    stream = StringIO()
    Console(width=160, file=stream).print(operator_distance_table(found))
    assert f"{name} (tanh) loses most" in stream.getvalue()


def test_arithmetic_decides_what_is_lost() -> None:
    artifact = tiny_artifact("coreml", "cnn", "fp32")
    half, whole = (_compare(artifact.path, artifact.program, compute) for compute in ("fp16", "fp32"))
    assert 40 < min(item.sqnr_db for item in half.operators) < 80
    assert min(item.sqnr_db for item in whole.operators) > 100


def test_two_packages_are_compared_by_value_and_not_timed() -> None:
    whole, half = (tiny_artifact("coreml", "cnn", precision).path for precision in ("fp32", "fp16"))
    found = compare_artifacts(
        CompareRequest(first=find_operands(whole, half, None)[0], second=find_operands(whole, half, None)[1])
    )
    assert found.runs is not None and found.runs.timing is None and found.runs.operators is None
    assert 40 < found.runs.parity[0].sqnr_db < 90
    assert found.not_run is None and "macOS only" in found.not_timed


def test_command_compares_a_program_with_a_package(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = tiny_artifact("coreml", "cnn", "fp16")
    arguments = ["compare", str(artifact.path), str(artifact.program.path), "--operators", "--json"]
    assert run([*arguments, "--inputs", str(artifact.program.reference)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["first"]["format"] == "program"  # whichever was named first
    assert document["runs"]["parity"][0]["sqnr_db"] > 40
    operators = document["runs"]["operators"]
    assert operators["samples"] == 4 and len(operators["operators"]) > 8


def test_what_cannot_be_looked_into_is_refused(tmp_path: Path) -> None:
    package, program = tiny_artifact("coreml", "cnn", "fp16")[:2]
    other = tmp_path / "model.tflite"
    other.write_bytes(b"")
    with pytest.raises(UnsupportedError, match="only coreml artifacts show"):
        compare_artifacts(_request(program.path, other))
    with pytest.raises(UnsupportedError, match="comparing two programs"):
        find_operands(program.path, program.path, None)
    with pytest.raises(ArtifactError, match="a build folder with --artifact"):
        find_operands(package, None, "coreml/fp16")


def _request(first: Path, second: Path) -> CompareRequest:
    one, other = find_operands(first, second, None)
    return CompareRequest(first=one, second=other, operators=True)
