"""How far the Core ML int8 artifact of a build lies from the TFLite one: the outputs of both, value by value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, load_entry
from edgekit.formats import format_of_path
from edgekit.pipeline.operands import find_operands
from edgekit.records import Program, from_json
from edgekit.verify.reference import load_reference

PAIR = ("tflite/int8", "coreml/int8")
COREML_STEPS = 1.0
"""How far the Core ML artifact may be from the TFLite one, in steps of the output's grid."""
IN_FLOAT32 = [
    {"format": "tflite", "precision": "int8"},
    {"format": "coreml", "precision": "int8", "keep_float32": ["*"]},
]
"""The pair with float32 between the integers of the Core ML artifact: exact, but not for the Neural Engine."""


def steps_apart(build: Path) -> float | None:
    """Return the largest difference in steps of the outputs' grids; None where an output has no grid.

    Both artifacts dequantize their outputs, TFLite in float32 and Core ML in float16; values are put back on the grid
    before they are compared, so that the spacing of float16 is not taken for a difference of the integers.

    Args:
        build: A build folder with both artifacts of ``PAIR``.
    """
    program, _ = find_operands(build, None, PAIR[0])
    record = from_json(Program, json.loads(program.path.with_suffix(".json").read_text(encoding="utf-8")))
    if any(step is None for step in record.output_steps):
        return None
    steps = [step for step in record.output_steps if step is not None]
    expected, found = (_outputs(build, artifact) for artifact in PAIR)
    return max(
        float(np.abs(np.rint(other / step) - np.rint(one / step)).max())
        for one, other, step in zip(expected, found, steps, strict=True)
    )


def _outputs(build: Path, artifact: str) -> list[NDArray[np.float64]]:
    """Run an artifact on the samples that it was verified on, one by one."""
    _, operand = find_operands(build, None, artifact)
    reference = load_reference(operand.samples or build)
    spec = format_of_path(str(operand.path))
    session: Session
    with load_entry(spec.open_session)(operand.path, 1) as session:
        runs = [
            [np.array(output) for output in session.run([array[i : i + 1] for array in reference.inputs])]
            for i in range(len(reference))
        ]
    return [np.stack(outputs).astype(np.float64) for outputs in zip(*runs, strict=True)]
