"""Run a ``.mlpackage`` with Core ML, on macOS. Written from coremltools' documentation, not run: no Mac was at hand."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import ClosesOnExit, Session
from edgekit.errors import ToolError, UnsupportedError
from edgekit.formats.coreml.inspect import inspect
from edgekit.formats.feeding import fit_inputs
from edgekit.formats.light_imports import import_coremltools
from edgekit.records import OperatorTime, RuntimeInfo

Array = NDArray[np.generic]


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
            found = self._model.predict(self._feed(inputs))
        except RuntimeError as error:
            raise ToolError(f"Core ML could not run the model: {error}") from error
        return tuple(np.asarray(found[spec.name]) for spec in self.outputs)

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs; see ``Session.prepare``. The copy into Core ML's buffers is part of each execution."""
        feed = self._feed(inputs)

        def execute() -> None:
            self._model.predict(feed)

        return execute

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Refuse; see ``Session.operator_times``."""
        raise UnsupportedError(
            f"operator times of Core ML ({len(inputs)} inputs, {num_runs} runs)",
            reason="Core ML tells them to Xcode's performance report only",
            instead="the report of Xcode for this package",
        )

    def _feed(self, inputs: Sequence[Array]) -> dict[str, Array]:
        # the package takes booleans as floats
        real = [array.astype(np.float32) if np.asarray(array).dtype == bool else array for array in inputs]
        return {spec.name: array for spec, array in zip(self.inputs, fit_inputs(self.inputs, real), strict=True)}

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None


def open_session(path: Path, num_threads: int) -> Session:
    """Load a package.

    Args:
        path: The package.
        num_threads: Ignored: Core ML decides.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: This machine is no Mac.
    """
    del num_threads
    if platform.system() != "Darwin":
        inspect(path)  # a broken package is named first
        raise UnsupportedError(
            f"running {path.name} on this machine",
            reason="Core ML's runtime exists on macOS only",
            instead="a Mac, or the executorch or tflite artifact here",
        )
    return CoremlSession(path)
