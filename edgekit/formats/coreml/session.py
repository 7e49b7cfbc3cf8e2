"""Run a ``.mlpackage``: with Core ML on macOS, elsewhere with the reference evaluator.

``CoremlSession`` is written from coremltools' documentation and has not been run: no Mac was at hand.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit import __version__
from edgekit.contracts import ClosesOnExit, Session
from edgekit.data.feeding import fit_inputs
from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.coreml.inspect import UNKNOWN, inspect
from edgekit.formats.light_imports import import_coremltools
from edgekit.records import Compute, OperatorTime, RuntimeInfo, TensorSpec

Array = NDArray[np.generic]


def feed(specs: Sequence[TensorSpec], inputs: Sequence[Array]) -> dict[str, Array]:
    """Name the inputs and make them fit; the package takes booleans as floats.

    Raises:
        UnsupportedError: An input is an image, a dictionary or the like.
        DataError: They do not fit.
    """
    other = [spec.name for spec in specs if spec.dtype == UNKNOWN]
    if other:
        raise UnsupportedError(
            f"feeding the input {', '.join(other)}",
            reason="it is no multi-array (an image, a dictionary)",
            instead="the same model converted with coremltools.TensorType inputs",
        )
    real = [array.astype(np.float32) if np.asarray(array).dtype == bool else array for array in inputs]
    return {spec.name: array for spec, array in zip(specs, fit_inputs(specs, real), strict=True)}


class CoremlSession(ClosesOnExit):
    """A loaded ML program: see ``edgekit.contracts.Session``. Written, not run.

    Core ML sizes its own thread pool.

    Args:
        path: The package.
    """

    def __init__(self, path: Path) -> None:
        inspection = inspect(path)
        self.inputs, self.outputs = inspection.inputs, inspection.outputs
        models = import_coremltools().models
        start = time.perf_counter()
        self._model = models.MLModel(str(path))
        self.load_ms: float | None = (time.perf_counter() - start) * 1e3
        self.runtime = RuntimeInfo(name="Core ML", version=platform.mac_ver()[0], delegates=("Core ML",))

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once; see ``Session.run``."""
        try:
            found = self._model.predict(feed(self.inputs, inputs))
        except RuntimeError as error:
            raise ToolError(f"Core ML could not run the model: {error}") from error
        return tuple(np.asarray(found[spec.name]) for spec in self.outputs)

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs; see ``Session.prepare``. The copy into Core ML's buffers is part of each execution."""
        fed = feed(self.inputs, inputs)

        def execute() -> None:
            self._model.predict(fed)

        return execute

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Refuse; see ``Session.operator_times``."""
        raise UnsupportedError(
            f"operator times of Core ML ({len(inputs)} inputs, {num_runs} runs)",
            reason="Core ML tells them to Xcode's performance report only",
            instead="the report of Xcode for this package",
        )

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None


class EvaluatorSession(ClosesOnExit):
    """A package that the reference evaluator executes: see ``edgekit.contracts.Session``.

    It gives the values of Core ML's documented semantics, with float16 rounded where the program declares it. Its
    times say nothing of Core ML.

    Args:
        path: The package.
        num_threads: Of torch, while it runs.
        compute: What results are rounded to: see the evaluator.
    """

    def __init__(self, path: Path, num_threads: int, compute: Compute = "declared") -> None:
        from edgekit.formats.coreml.evaluator import Evaluator

        inspection = inspect(path)
        self.inputs, self.outputs = inspection.inputs, inspection.outputs
        self._num_threads = num_threads
        start = time.perf_counter()
        self._evaluator: Evaluator | None = Evaluator(path, compute=compute)
        self.load_ms: float | None = (time.perf_counter() - start) * 1e3
        self.runtime = RuntimeInfo(name="Core ML reference evaluator", version=__version__, delegates=())

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once, with fresh states; see ``Session.run``."""
        return self._run(feed(self.inputs, inputs))

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs; see ``Session.prepare``."""
        fed = feed(self.inputs, inputs)

        def execute() -> None:
            self._run(fed)

        return execute

    def _run(self, fed: dict[str, Array]) -> tuple[Array, ...]:
        import torch

        if self._evaluator is None:
            raise ToolError("expected an open session; this one is closed")
        threads = torch.get_num_threads()
        torch.set_num_threads(self._num_threads)
        try:
            found = self._evaluator.run(fed)
        finally:
            torch.set_num_threads(threads)
        return tuple(found[spec.name].astype(spec.dtype, copy=False) for spec in self.outputs)

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Refuse; see ``Session.operator_times``."""
        raise UnsupportedError(
            f"operator times of the reference evaluator ({len(inputs)} inputs, {num_runs} runs)",
            reason="they say nothing of Core ML on a device",
            instead="a Mac, and the report of Xcode for this package",
        )

    def close(self) -> None:
        """Free the weights."""
        self._evaluator = None


def open_session(path: Path, num_threads: int) -> Session:
    """Load a package.

    Args:
        path: The package.
        num_threads: Of the reference evaluator; Core ML decides for itself.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: It is no ML program, or holds an operation that the evaluator does not know.
    """
    if platform.system() == "Darwin":
        return CoremlSession(path)
    return EvaluatorSession(path, num_threads)


def open_session_with_compute(path: Path, num_threads: int, compute: Compute) -> Session:
    """Load a package into the reference evaluator, on a Mac too: Core ML does not let its arithmetic be chosen.

    Args:
        path: The package.
        num_threads: Of torch, while it runs.
        compute: ``declared``, ``fp16`` or ``fp32``: what results are rounded to.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: It is no ML program, or holds an operation that the evaluator does not know.
    """
    return EvaluatorSession(path, num_threads, compute)
