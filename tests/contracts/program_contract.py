"""What every format must make of a program, whichever framework the program came from.

The models are the same in PyTorch and in Keras; what differs is what a framework's users write: the place of channels,
the width of tokens, an output without a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from contracts.tiny_artifacts import ProgramMaker, TinyArtifact, export_program, program_for, tiny_artifact
from contracts.tiny_programs import CNN_MACS, SAMPLES

from edgekit.contracts import FormatSpec, Inspection, load_entry
from edgekit.errors import DataError, UnsupportedError
from edgekit.formats import require_cell
from edgekit.records import PRECISIONS, Precision, Program

QUANTIZED_WEIGHTS = ("int8", "int8-dynamic", "w8", "w4", "int16x8")
INTERFACE_MODELS = ("cnn", "attention", "two_heads")


BAD_IMAGES: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "wrong-size": lambda shape: np.zeros((*shape[:2], shape[2] - 1, shape[3]), np.float32),
    "wrong-rank": lambda shape: np.zeros(shape[1:], np.float32),
    "other-layout": lambda shape: np.zeros((1, *sorted(shape[1:], reverse=shape[1] < shape[3])), np.float32),
    "empty": lambda shape: np.zeros((0, *shape[1:]), np.float32),
    "float64": lambda shape: np.zeros(shape, np.float64),
    "int64": lambda shape: np.zeros(shape, np.int64),
}
"""Of the shape that is right."""


class ProgramContract:
    """The suite. Subclasses set ``spec`` and ``maker``."""

    spec: FormatSpec
    maker: ProgramMaker
    backend: str | None = None
    min_sqnr_db: ClassVar[dict[str, float]] = {
        "fp32": 100.0,
        "fp16": 55.0,
        "int8": 30.0,
        "int8-dynamic": 30.0,
        "w8": 90.0,
        "w6": 30.0,
        "w4": 90.0,
        "int16x8": 40.0,
    }
    """Against the program of the cell (int16x8, w6: against the fp32 program, weights are new)."""
    max_steps = 1.01
    """Of an int8 artifact against its program, in quantization steps of the output."""
    recurrent_min_sqnr_db = 90.0
    counts_macs = True

    def artifact(self, model: str, precision: Precision) -> TinyArtifact:
        """An artifact of a tiny model, exported once in a test process."""
        return tiny_artifact(self.spec.name, model, precision, backend=self.backend, maker=self.maker)

    def export(self, model: str, precision: Precision, folder: Path, **of_program: Any) -> TinyArtifact:
        """The same, exported anew."""
        name, backend = self.spec.name, self.backend
        program = program_for(name, model, precision, backend=backend, maker=self.maker, **of_program)
        return export_program(name, program, precision, folder, backend=backend)

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

    @pytest.mark.parametrize("model", INTERFACE_MODELS)
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

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_convolutional_net_is_one_delegate(self, precision: Precision) -> None:
        if not self.supported(precision):
            pytest.skip(f"the format has no {precision}")
        path, _, result = self.artifact("cnn", precision)
        inspection = self.inspect(path)
        assert [item.name for item in result.operators or inspection.operators if not item.delegated] == []
        assert inspection.partitions in (None, 1)

    # Deterministic.

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_artifact_is_byte_identical_when_exported_in_another_folder(
        self, precision: Precision, tmp_path: Path
    ) -> None:
        if not self.supported(precision):
            pytest.skip(f"the format has no {precision}")
        first, _, _ = self.artifact("cnn", precision)
        second, program, _ = self.export("cnn", precision, tmp_path / "elsewhere", place="somewhere else")
        assert _contents(first) == _contents(second)
        places = (str(tmp_path).encode(), str(program.path.parent).encode())
        assert not any(place in content for content in _contents(second).values() for place in places)

    # Bad input: one clear error.

    @pytest.mark.parametrize("bad", BAD_IMAGES)
    def test_session_refuses_inputs_of_another_shape_or_dtype(self, bad: str) -> None:
        self.need_runtime()
        path, _, _ = self.artifact("cnn", self.float_precision())
        with self.open(path) as session, pytest.raises(DataError, match="image"):
            session.run([BAD_IMAGES[bad](self.maker.image)])

    def test_session_refuses_another_number_of_inputs(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("two_heads", self.float_precision())
        with self.open(path) as session, pytest.raises(DataError, match="left"):
            session.run([reference_of(program, "input")[0][:1]])

    # Interfaces other than one image in, one vector out.

    def test_batch_is_free_or_refused_with_a_way_out(self, tmp_path: Path) -> None:
        if self.spec.dynamic_batch is not None:
            assert len(self.spec.dynamic_batch.reason) > 20 and self.spec.dynamic_batch.instead
            return
        path, program, _ = self.export("cnn", self.float_precision(), tmp_path, dynamic_batch=True)
        assert self.inspect(path).inputs[0].shape[0] is None
        self.need_runtime()
        (images,), (expected,) = reference_of(program, "input"), reference_of(program, "program_output")
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

    def test_output_of_low_rank_keeps_its_shape(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("two_heads", self.float_precision())
        with self.open(path) as session:
            _, total = session.run([array[:1] for array in reference_of(program, "input")])
        assert total.shape == self.maker.total

    def test_int64_values_that_the_artifact_cannot_hold_are_refused(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("attention", self.float_precision())
        tokens, mask = (array[:1] for array in reference_of(program, "input"))
        with self.open(path) as session:
            if session.inputs[0].dtype == "int64":
                return
            with pytest.raises(DataError, match="tokens"):
                session.run([np.full(tokens.shape, 2**40), mask])

    def test_runs_are_independent_when_the_model_is_recurrent(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("recurrent", self.float_precision())
        assert self.sqnr(path, program) >= min(self.recurrent_min_sqnr_db, self.min_sqnr_db[self.float_precision()])
        (sequences,) = reference_of(program, "input")
        with self.open(path) as session:
            first = session.run([sequences[:1]])[0].copy()
            session.run([sequences[1:2]])
            np.testing.assert_array_equal(session.run([sequences[:1]])[0], first)

    # Measures that the tests above share.

    def float_precision(self) -> Precision:
        """The precision at which interfaces are tested."""
        return "fp32" if self.supported("fp32") else "fp16"

    def float_tolerance(self, expected: np.ndarray) -> float:
        """Absolute tolerance of a float artifact."""
        return float(np.abs(expected).max()) * 10 ** (-self.min_sqnr_db[self.float_precision()] / 20)

    def outputs(self, path: Path, program: Program) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Run every reference sample; return the artifact's and the program's outputs, samples in axis 0."""
        inputs, expected = reference_of(program, "input"), reference_of(program, "program_output")
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


def reference_of(program: Program, group: str) -> list[np.ndarray]:
    """Return the inputs or outputs of a program's reference samples, in order."""
    with np.load(program.reference) as arrays:
        return [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}_")]


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in files_of(path)}


def files_of(path: Path) -> Iterator[Path]:
    """Return the files of an artifact, which may be a folder."""
    return iter([path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()))
