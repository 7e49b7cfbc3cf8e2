"""See what every operation gives: of a package, and of a program as it is handed to coremltools.

The exporter rewrites a program before it converts it, and coremltools names what it makes after the nodes of the
program that it is given. So the program is rewritten here too: the names of both then meet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgekit.contracts import TracedValue
from edgekit.formats.coreml.evaluator import Evaluator
from edgekit.formats.coreml.evaluator.prepare import Step
from edgekit.formats.coreml.evaluator.registry import Call, Value
from edgekit.formats.coreml.input_grid import round_inputs
from edgekit.formats.coreml.inspect import inspect
from edgekit.formats.coreml.rewrite import rewrite
from edgekit.formats.coreml.session import feed
from edgekit.program.quiet import quiet
from edgekit.program.serialize import load_program
from edgekit.program.trace import ProgramTracer
from edgekit.records import Compute

Array = NDArray[np.generic]

_ADDED = re.compile(r"(_cast_(fp16|fp32|bf16)|_to_(fp16|fp32))+$")
"""What coremltools puts behind the name of a result whose precision it changed."""


class PackageTracer:
    """A package of which every floating-point result can be seen: see ``edgekit.contracts.Tracer``.

    Args:
        path: The package.
        compute: What results are rounded to: see the evaluator.
    """

    def __init__(self, path: Path, compute: Compute) -> None:
        inspection = inspect(path)
        self.inputs, self.outputs = inspection.inputs, inspection.outputs
        self._evaluator = Evaluator(path, compute=compute)

    def trace(self, inputs: Sequence[Array]) -> tuple[TracedValue, ...]:
        """Run once; see ``Tracer.trace``. Of a loop, the first pass through its body."""
        watcher = _Watcher()
        self._evaluator.run(feed(self.inputs, inputs), observer=watcher.observe)
        return tuple(watcher.seen.values())

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs."""
        found = self._evaluator.run(feed(self.inputs, inputs))
        return tuple(found[spec.name].astype(spec.dtype, copy=False) for spec in self.outputs)


class _Watcher:
    """Keeps floating-point results, and which of them each was computed from."""

    def __init__(self) -> None:
        self.seen: dict[str, TracedValue] = {}
        self._behind: dict[str, tuple[str, ...]] = {}

    def observe(self, step: Step, _call: Call, results: tuple[Value, ...]) -> None:
        """Note the results of one operation."""
        reads: dict[str, None] = {}
        for name in step.operation.references():
            reads.update(dict.fromkeys((name,) if name in self.seen else self._behind.get(name, ())))
        for declared, value in zip(step.operation.outputs, results, strict=True):
            self._behind[declared.name] = tuple(reads)
            if declared.name not in self.seen and isinstance(value, Tensor) and value.is_floating_point():
                self.seen[declared.name] = TracedValue(
                    name=declared.name,
                    origin=_ADDED.sub("", declared.name),
                    type=step.operation.type,
                    layer=None,
                    value=value.float().numpy(),
                    reads=tuple(reads),
                )


def open_trace(path: Path, compute: Compute) -> PackageTracer:
    """Load a package to be traced by the reference evaluator, on a Mac too: Core ML shows no values between.

    Raises:
        ArtifactError: The package is missing, truncated or damaged.
        UnsupportedError: It is no ML program, or holds an operation that the evaluator does not know.
    """
    return PackageTracer(path, compute)


def open_program_trace(path: Path) -> ProgramTracer:
    """Load a program and rewrite it as the exporter does.

    Raises:
        ModelError: The file is no program.
    """
    program = load_program(path)
    with quiet("coremltools"):
        return ProgramTracer(round_inputs(rewrite(program)))
