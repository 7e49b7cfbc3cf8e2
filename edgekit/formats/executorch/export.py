"""Write a ``.pte`` file."""

from __future__ import annotations

import json

from executorch.exir.backend.partitioner import Partitioner

from edgekit.contracts import ExportResult
from edgekit.errors import UnsupportedError
from edgekit.formats.executorch.container import PteFile, read_pte
from edgekit.formats.executorch.half import to_half
from edgekit.formats.executorch.lowering import LARGEST_BATCH, lower, write_file
from edgekit.formats.executorch.operators import read_operators
from edgekit.formats.executorch.runtime import kernel_names
from edgekit.program.decompositions import unrolled_steps
from edgekit.program.serialize import load_program
from edgekit.records import ExportRequest, Operator

LONGEST_SEQUENCE = 256
"""Recurrent layers are unrolled; beyond this many steps lowering takes many minutes (about 0.3 s a step)."""


def export(request: ExportRequest) -> ExportResult:
    """Lower a program to a ``.pte`` file.

    Args:
        request: ``backend`` ``None`` means ``xnnpack``.

    Raises:
        UnsupportedError: A recurrent layer over a very long sequence, or an operation without a kernel.
        ModelError: The program cannot be read.
    """
    backend = request.backend or "xnnpack"
    program = load_program(request.program.path)
    steps = unrolled_steps(program)
    if steps > LONGEST_SEQUENCE:
        raise UnsupportedError(
            f"executorch with a recurrent layer over {steps} steps",
            reason=f"ExecuTorch has no recurrent operation; each step is written out, at most {LONGEST_SEQUENCE}",
            instead="a shorter sequence, or a convolutional or attention model",
        )
    if request.precision == "fp16" and backend != "coreml":
        program = to_half(program)
    lowered = lower(
        program,
        backend,
        request.precision,
        interface=_interface(request),
        coreml_partitioner=lambda: _coreml_partitioner(request),
    )
    request.output.parent.mkdir(parents=True, exist_ok=True)
    write_file(request.output, lowered.data)
    file = read_pte(request.output)
    _check_kernels(file)
    operators = read_operators(file, lowered.lowering)
    return ExportResult(operators=operators, notes=tuple(_notes(request, steps, operators)))


def _interface(request: ExportRequest) -> str:
    """Names and free sizes of inputs and outputs, for which the file's schema has no place."""
    program = request.program
    sides = {"inputs": program.inputs, "outputs": program.outputs}
    known = {
        side: [
            {"name": spec.name, "free": [axis for axis, size in enumerate(spec.shape) if size is None]}
            for spec in specs
        ]
        for side, specs in sides.items()
    }
    return json.dumps({"schema_version": 1, **known}, sort_keys=True)


def _check_kernels(file: PteFile) -> None:
    """Refuse a program that loads nowhere: one with an operation for which the runtime brings no kernel."""
    wanted = {f"{item.name}.{item.overload}" if item.overload else item.name for item in file.plan.operators}
    missing = sorted(wanted - kernel_names())
    if missing:
        raise UnsupportedError(
            f"executorch with the operations {', '.join(missing)}",
            reason="the runtime has no kernel for them",
            instead="other operations in the model's forward function",
        )


def _notes(request: ExportRequest, steps: int, operators: tuple[Operator, ...]) -> list[str]:
    notes = []
    if any("quantized_decomposed" in operator.type for operator in operators if not operator.delegated):
        notes.append(
            "quantized operations are left outside of the delegate: link ExecuTorch's quantized kernels "
            "(quantized_ops_lib) into the application"
        )
    if steps:
        notes.append(
            f"recurrent layers are unrolled over {steps} steps; their weights stay float32 whatever the precision, "
            "and XNNPACK packs them once a step"
        )
    if request.precision == "w8":
        portable = sum("convolution" in operator.type for operator in operators if not operator.delegated)
        notes.append("weights are stored as int8 and dequantized at each inference: smaller, not faster")
        if portable:
            notes.append(f"{portable} convolutions run on the portable kernels: XNNPACK needs their weights constant")
    if request.precision == "fp16":
        notes.append("inputs and outputs stay float32")
    if request.dynamic_batch or request.program.dynamic_batch:
        notes.append(f"memory is planned for the largest batch ({LARGEST_BATCH} unless the program says otherwise)")
    return notes


def _coreml_partitioner(request: ExportRequest) -> Partitioner:
    from edgekit.formats.executorch.coreml_delegate import make_partitioner

    return make_partitioner(request.precision, request.minimum_deployment_target)
