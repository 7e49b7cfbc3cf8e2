"""What every format must do, inherited by one test class a format (and backend).

A subclass names its ``spec`` and, where its numbers differ, its tolerances::

    class TestTfliteContract(FormatContract):
        spec = SPEC
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from contracts.tiny_programs import CNN_MACS, SAMPLES, build_program, cached_folder, tiny_program

from edgekit.contracts import ExportResult, FormatSpec, Inspection, load_entry
from edgekit.errors import ArtifactError, DataError, UnsupportedError
from edgekit.formats import require_cell
from edgekit.records import PRECISIONS, ExportRequest, Precision, Program

QUANTIZED_WEIGHTS = ("int8", "int8-dynamic", "w8", "w4", "int16x8")


class FormatContract:
    """The suite. Subclasses set ``spec``."""

    spec: FormatSpec
    backend: str | None = None
    minimum_deployment_target: str | None = None
    min_sqnr_db: ClassVar[dict[str, float]] = {
        "fp32": 100.0,
        "fp16": 55.0,
        "int8": 30.0,
        "int8-dynamic": 30.0,
        "w8": 90.0,
        "w4": 90.0,
        "int16x8": 40.0,
    }
    """Against the program of the cell (int16x8: against the fp32 program, weights are new)."""
    max_steps = 1.01
    """Of an int8 artifact against its program, in quantization steps of the output."""
    recurrent_min_sqnr_db = 90.0
    counts_macs = True

    def export(
        self, model: str, precision: Precision, folder: Path, *, program: Program | None = None, dynamic: bool = False
    ) -> tuple[Path, Program, ExportResult]:
        """Export a tiny model and return the artifact, its program and what the exporter said."""
        _, program_precision = require_cell(self.spec, precision, self.backend)
        program = program or tiny_program(model, program_precision, dynamic_batch=dynamic)
        request = ExportRequest(
            program=program,
            format=self.spec.name,
            precision=precision,
            backend=self.backend,
            minimum_deployment_target=self.minimum_deployment_target,
            dynamic_batch=dynamic,
            output=folder / f"model{self.spec.suffix}",
            work_dir=folder / "work",
        )
        request.work_dir.mkdir(parents=True, exist_ok=True)
        result = load_entry(self.spec.export)(request)
        return request.output, program, result

    @classmethod
    def _folder(cls, name: str) -> Path:
        return cached_folder() / cls.__name__ / name

    def artifact(self, model: str, precision: Precision) -> tuple[Path, Program, ExportResult]:
        """The same, exported once in a test process."""
        return _exported(type(self), model, precision)

    def open(self, path: Path, num_threads: int = 1):
        """Load an artifact."""
        return load_entry(self.spec.open_session)(path, num_threads)

    def inspect(self, path: Path) -> Inspection:
        """Inspect an artifact."""
        found: Inspection = load_entry(self.spec.inspect)(path)
        return found

    def supported(self, precision: str) -> bool:
        """Whether the cell exists."""
        found = self.spec.backend(self.backend)
        return found is not None and precision in found.programs

    def need_runtime(self) -> None:
        """Skip where this machine has no runtime for the format."""
        found = self.spec.backend(self.backend)
        if found is not None and found.not_here:
            pytest.skip(found.not_here)

    # Every precision: it works, or it is refused with a way out.

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_artifact_agrees_with_program_or_is_refused_with_a_way_out(self, precision: Precision) -> None:
        if not self.supported(precision):
            with pytest.raises(UnsupportedError) as refused:
                require_cell(self.spec, precision, self.backend)
            assert len(refused.value.reason) > 20 and len(refused.value.instead) > 2
            return
        path, program, _ = self.artifact("cnn", precision)
        self.need_runtime()
        assert self.sqnr(path, program) >= self.min_sqnr_db[precision]

    def test_artifacts_load_in_a_process_that_exported_nothing(self) -> None:
        """Exporters load libraries that register kernels; where an artifact is run, only the session does."""
        self.need_runtime()
        paths = [str(self.artifact("cnn", precision)[0]) for precision in PRECISIONS if self.supported(precision)]
        code = (
            "import sys; from pathlib import Path; from edgekit.contracts import load_entry\n"
            "for path in sys.argv[2:]:\n"
            "    with load_entry(sys.argv[1])(Path(path), 1) as session: print(len(session.inputs))\n"
        )
        command = [sys.executable, "-c", code, self.spec.open_session, *paths]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == ["1"] * len(paths)

    def test_int8_outputs_are_at_most_one_step_from_the_program(self) -> None:
        if not self.supported("int8"):
            pytest.skip("the format has no int8")
        self.need_runtime()
        path, program, _ = self.artifact("cnn", "int8")
        assert program.output_steps[0] is not None
        (outputs,), (expected,) = self.outputs(path, program)
        assert np.abs(outputs - expected).max() <= self.max_steps * program.output_steps[0]

    @pytest.mark.parametrize("precision", QUANTIZED_WEIGHTS)
    def test_quantized_artifact_holds_integer_weights(self, precision: Precision) -> None:
        if not self.supported(precision):
            pytest.skip(f"the format has no {precision}")
        path, _, _ = self.artifact("cnn", precision)
        dtypes = {operator.weight_dtype for operator in self.inspect(path).operators if operator.macs}
        assert any(dtype is not None and "int" in dtype for dtype in dtypes), dtypes

    # What an artifact says of itself.

    @pytest.mark.parametrize("model", ["cnn", "attention", "two_heads"])
    def test_inspection_names_inputs_and_outputs_in_order(self, model: str) -> None:
        path, program, _ = self.artifact(model, self.float_precision())
        inspection = self.inspect(path)
        assert [spec.name for spec in inspection.inputs] == [spec.name for spec in program.inputs]
        assert [spec.name for spec in inspection.outputs] == [spec.name for spec in program.outputs]
        assert [spec.shape for spec in inspection.inputs] == [spec.shape for spec in program.inputs]
        assert [spec.shape for spec in inspection.outputs] == [spec.shape for spec in program.outputs]

    def test_inspection_lists_operators_in_execution_order(self) -> None:
        path, _, result = self.artifact("cnn", self.float_precision())
        operators = result.operators or self.inspect(path).operators
        assert [operator.index for operator in operators] == list(range(len(operators)))
        assert len({operator.name for operator in operators}) == len(operators)
        assert all(operator.reason for operator in operators if not operator.delegated)
        if self.counts_macs:
            assert sum(operator.macs for operator in operators) == CNN_MACS

    # Deterministic.

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_artifact_is_byte_identical_when_exported_in_another_folder(
        self, precision: Precision, tmp_path: Path
    ) -> None:
        if not self.supported(precision):
            pytest.skip(f"the format has no {precision}")
        first, _, _ = self.artifact("cnn", precision)
        _, program_precision = require_cell(self.spec, precision, self.backend)
        program = build_program("cnn", program_precision, tmp_path / "somewhere else" / "program")
        second, _, _ = self.export("cnn", precision, tmp_path / "elsewhere", program=program)
        assert _contents(first) == _contents(second)
        assert not any(str(tmp_path).encode() in content for content in _contents(second).values())

    # Bad input: one clear error.

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_truncated_artifact_is_refused(self, share: float, tmp_path: Path) -> None:
        path, _, _ = self.artifact("cnn", self.float_precision())
        broken = tmp_path / path.name
        _copy(path, broken)
        victim = max((file for file in [broken, *broken.rglob("*")] if file.is_file()), key=lambda f: f.stat().st_size)
        data = victim.read_bytes()
        victim.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ArtifactError):
            self.inspect(broken)
        self.need_runtime()
        with pytest.raises(ArtifactError):
            self.open(broken)

    def test_missing_artifact_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError):
            self.inspect(tmp_path / f"nothing{self.spec.suffix}")

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros((1, 3, 16, 15), np.float32),
            np.zeros((3, 16, 16), np.float32),
            np.zeros((0, 3, 16, 16), np.float32),
            np.zeros((1, 3, 16, 16), np.float64),
            np.zeros((1, 3, 16, 16), np.int64),
        ],
        ids=["wrong-size", "wrong-rank", "empty", "float64", "int64"],
    )
    def test_session_refuses_inputs_of_another_shape_or_dtype(self, bad: np.ndarray) -> None:
        self.need_runtime()
        path, _, _ = self.artifact("cnn", self.float_precision())
        with self.open(path) as session, pytest.raises(DataError, match="image"):
            session.run([bad])

    def test_session_refuses_another_number_of_inputs(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("two_heads", self.float_precision())
        with self.open(path) as session, pytest.raises(DataError, match="left"):
            session.run([_reference(program, "input")[0][:1]])

    # Interfaces other than one image in, one vector out.

    def test_batch_is_free_or_refused_with_a_way_out(self, tmp_path: Path) -> None:
        if self.spec.dynamic_batch is not None:
            assert len(self.spec.dynamic_batch.reason) > 20 and self.spec.dynamic_batch.instead
            return
        path, program, _ = self.export("cnn", self.float_precision(), tmp_path, dynamic=True)
        assert self.inspect(path).inputs[0].shape[0] is None
        self.need_runtime()
        (images,), (expected,) = _reference(program, "input"), _reference(program, "program_output")
        with self.open(path) as session:
            for count in (3, 1, SAMPLES):
                (outputs,) = session.run([images[:count]])
                np.testing.assert_allclose(outputs, expected[:count], atol=self.float_tolerance(expected))

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    @pytest.mark.parametrize("model", ["attention", "two_heads"])
    def test_several_inputs_and_outputs_agree_with_program(self, model: str, precision: Precision) -> None:
        if not self.supported(precision):
            pytest.skip(f"the format has no {precision}")
        self.need_runtime()
        path, program, _ = self.artifact(model, precision)
        assert self.sqnr(path, program) >= min(self.min_sqnr_db[precision], 60.0)

    def test_scalar_output_keeps_its_shape(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("two_heads", self.float_precision())
        with self.open(path) as session:
            _, total = session.run([array[:1] for array in _reference(program, "input")])
        assert total.shape == ()

    def test_int64_values_that_the_artifact_cannot_hold_are_refused(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("attention", self.float_precision())
        tokens, mask = (array[:1] for array in _reference(program, "input"))
        with self.open(path) as session:
            if session.inputs[0].dtype == "int64":
                return
            with pytest.raises(DataError, match="tokens"):
                session.run([np.full_like(tokens, 2**40), mask])

    def test_runs_are_independent_when_the_model_is_recurrent(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("recurrent", self.float_precision())
        assert self.sqnr(path, program) >= min(self.recurrent_min_sqnr_db, self.min_sqnr_db[self.float_precision()])
        (sequences,) = _reference(program, "input")
        with self.open(path) as session:
            first = session.run([sequences[:1]])[0].copy()
            session.run([sequences[1:2]])
            np.testing.assert_array_equal(session.run([sequences[:1]])[0], first)

    # The session protocol.

    def test_session_gives_the_same_outputs_with_two_threads(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", self.float_precision())
        image = _reference(program, "input")[0][:1]
        outputs = []
        for num_threads in (1, 2):
            with self.open(path, num_threads) as session:
                outputs.append(session.run([image])[0])
                assert session.runtime.name and session.runtime.version
        np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)

    def test_session_tells_what_the_runtime_took_to_load(self) -> None:
        self.need_runtime()
        path, _, _ = self.artifact("cnn", self.float_precision())
        with self.open(path) as session:
            assert session.load_ms is None or session.load_ms > 0

    def test_prepared_call_executes_what_was_fed(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", self.float_precision())
        image = _reference(program, "input")[0][:1]
        with self.open(path) as session:
            execute = session.prepare([image])
            assert execute() is None and execute() is None

    def test_operator_times_cover_the_run_or_are_refused(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", self.float_precision())
        image = _reference(program, "input")[0][:1]
        with self.open(path) as session:
            try:
                times = session.operator_times([image], 50)
            except UnsupportedError as refused:
                assert refused.instead
                return
        assert times and all(time.time_ms >= 0 for time in times)
        assert sum(time.share for time in times) == pytest.approx(1.0, abs=1e-3)

    # Measures that the tests above share.

    def float_precision(self) -> Precision:
        """The precision at which interfaces are tested."""
        return "fp32" if self.supported("fp32") else "fp16"

    def float_tolerance(self, expected: np.ndarray) -> float:
        """Absolute tolerance of a float artifact."""
        return float(np.abs(expected).max()) * 10 ** (-self.min_sqnr_db[self.float_precision()] / 20)

    def outputs(self, path: Path, program: Program) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Run every reference sample; return the artifact's and the program's outputs, samples in axis 0."""
        inputs, expected = _reference(program, "input"), _reference(program, "program_output")
        with self.open(path) as session:
            rows = [session.run([array[i : i + 1] for array in inputs]) for i in range(SAMPLES)]
        found = [
            np.stack(column) if column[0].ndim == 0 else np.concatenate(column) for column in zip(*rows, strict=True)
        ]
        return found, expected

    def sqnr(self, path: Path, program: Program) -> float:
        """The worst output's signal to error ratio against the program, in dB."""
        found, expected = self.outputs(path, program)
        ratios = []
        for output, reference in zip(found, expected, strict=True):
            assert output.shape == reference.shape
            error = np.square(output.astype(np.float64) - reference).sum()
            ratios.append(300.0 if error == 0 else 10 * np.log10(np.square(reference.astype(np.float64)).sum() / error))
        return min(ratios)


@cache
def _exported(case: type[FormatContract], model: str, precision: Precision) -> tuple[Path, Program, ExportResult]:
    folder = case._folder(f"{model}-{precision}")
    return case().export(model, precision, folder)


def _reference(program: Program, group: str) -> list[np.ndarray]:
    with np.load(program.reference) as arrays:
        return [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}_")]


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in _files(path)}


def _files(path: Path) -> Iterator[Path]:
    return iter([path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
