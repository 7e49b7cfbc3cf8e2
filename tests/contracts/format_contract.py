"""What every format must do, inherited by one test class a format (and backend).

A subclass names its ``spec`` and, where its numbers differ, its tolerances::

    class TestTfliteContract(FormatContract):
        spec = SPEC

    class TestTfliteContractFromKeras(FormatContractFromKeras):
        spec = SPEC
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contracts.program_contract import ProgramContract, reference_of
from contracts.tiny_artifacts import KERAS, PYTORCH

from edgekit.contracts import load_entry
from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.formats import format_spec
from edgekit.records import PRECISIONS


class FormatContract(ProgramContract):
    """Programs from PyTorch, and what has nothing to do with where a program came from. Subclasses set ``spec``."""

    maker = PYTORCH

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

    # The session protocol.

    def test_session_gives_the_same_outputs_with_two_threads(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", self.float_precision())
        image = reference_of(program, "input")[0][:1]
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
        image = reference_of(program, "input")[0][:1]
        with self.open(path) as session:
            execute = session.prepare([image])
            assert execute() is None and execute() is None

    def test_operator_times_cover_the_run_or_are_refused(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", self.float_precision())
        image = reference_of(program, "input")[0][:1]
        with self.open(path) as session:
            try:
                times = session.operator_times([image], 50)
            except UnsupportedError as refused:
                assert refused.instead
                return
        assert times and all(time.time_ms >= 0 for time in times)
        assert sum(time.share for time in times) == pytest.approx(1.0, abs=1e-3)


class FormatContractFromKeras(ProgramContract):
    """Programs from Keras, and what they owe the file that they were read from. Subclasses set ``spec``."""

    maker = KERAS

    def test_int8_outputs_are_at_most_one_step_from_tensorflows_file(self) -> None:
        self.need_runtime()
        path, program, _ = self.artifact("cnn", "int8")
        step, origin = program.output_steps[0], program.origin
        assert step is not None and origin is not None
        (images,) = reference_of(program, "input")
        with load_entry(format_spec("tflite").open_session)(origin, 1) as theirs, self.open(path) as ours:
            for image in images:
                (expected,), (received,) = theirs.run([image[None]]), ours.run([image[None]])
                assert np.abs(received - expected).max() <= self.max_steps * step


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
