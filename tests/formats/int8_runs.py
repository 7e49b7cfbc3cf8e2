"""One int8 program, lowered to TFLite and to ExecuTorch and run by both: for tests that compare formats."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgekit.contracts import Inspection
from edgekit.program.quantization import output_quantizations
from edgekit.program.serialize import load_program, save_program
from edgekit.recipe.schema import QuantizeRule
from edgekit.records import ExportRequest, Program, TensorSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch's own imports use deprecated parts of Python and torch
    from edgekit.formats.executorch.export import export as export_executorch
    from edgekit.formats.executorch.inspect import inspect as inspect_executorch
    from edgekit.formats.executorch.session import open_session as open_executorch
    from edgekit.formats.tflite.export import export as export_tflite
    from edgekit.formats.tflite.inspect import inspect as inspect_tflite
    from edgekit.formats.tflite.session import open_session as open_tflite
    from edgekit.frameworks.pytorch.capture import export_program
    from edgekit.frameworks.pytorch.quantize import calibrate, convert, prepare

_TOOLS = {
    "tflite": (export_tflite, inspect_tflite, open_tflite),
    "executorch": (export_executorch, inspect_executorch, open_executorch),
}
Outputs = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Run:
    """What an artifact is made of, and what it returned."""

    inspection: Inspection
    outputs: Outputs


def settled(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Give batch norms the statistics of noise: untrained ones let activations vanish or grow with depth."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    module.train()
    with torch.no_grad():
        for seed in range(2):
            module(torch.randn(16, *shape, generator=torch.Generator().manual_seed(seed)))
    return module.eval()


def int8_program(module: nn.Module, calibration: Tensor, folder: Path, *, dynamic_batch: bool = False) -> Program:
    """Quantize a module with one input as the pipeline does, and save its program."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    prepared = prepare(module, (calibration[:2],), QuantizeRule(precision="int8"))
    calibrate(prepared, [(calibration,)])
    program = export_program(convert(prepared), (calibration[:1],), dynamic_batch=dynamic_batch)
    save_program(program, folder / "program.pt2")
    with torch.no_grad():
        outputs = program.module(check_guards=False)(calibration[:1])
    free = None if dynamic_batch else 1
    nowhere = folder / "none.npz"
    return Program(
        path=folder / "program.pt2", precision="int8", dynamic_batch=dynamic_batch,
        inputs=(TensorSpec(name="input", dtype="float32", shape=(free, *calibration.shape[1:])),),
        outputs=tuple(
            TensorSpec(name=f"output{index}", dtype="float32", shape=(free, *output.shape[1:]))
            for index, output in enumerate(outputs)
        ),
        reference=nowhere, calibration=None,
        output_steps=tuple(None if found is None else found.scale[0] for found in output_quantizations(program)),
    )  # fmt: skip


def run_program(program: Program, samples: Tensor) -> Outputs:
    """Run the program itself, sample by sample."""
    loaded: ExportedProgram = load_program(program.path)
    module = loaded.module(check_guards=False)
    with torch.no_grad():
        return _columns([[output.numpy() for output in module(sample)] for sample in samples.split(1)])


def run_format(program: Program, name: str, samples: Tensor, folder: Path, *, batch: int = 1) -> Run:
    """Lower a program and run the artifact over batches."""
    export, inspect, open_session = _TOOLS[name]
    output = folder / name / "model"
    request = ExportRequest(
        program=program, format=name, precision="int8", dynamic_batch=program.dynamic_batch, output=output,
        work_dir=folder / name,
    )  # fmt: skip
    export(request)
    with open_session(output, 1) as session:
        rows = [session.run([part.numpy()]) for part in samples.split(batch)]
    return Run(inspect(output), _columns(rows))


def _columns(rows: Sequence[Sequence[NDArray[np.generic]]]) -> Outputs:
    return [np.concatenate(column) for column in zip(*rows, strict=True)]
