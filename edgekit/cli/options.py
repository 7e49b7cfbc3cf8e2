"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgekit.records import Compute, HalfCompute, ModelLayer
    from edgekit.targets.emulated.calibration import Layer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Exports side by side (default: one a core).")]
Force = Annotated[bool, typer.Option("--force", help="Do the work anew instead of taking it from the cache.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write (default: builds/<name>).")]
BuildDir = Annotated[Path, typer.Argument(help="A build folder.", show_default=False)]
NumRuns = Annotated[int, typer.Option("--num-runs", min=1, help="Timed inferences.")]
WarmupRuns = Annotated[int, typer.Option("--warmup-runs", min=0, help="Untimed inferences before them.")]
NumThreads = Annotated[int, typer.Option("--num-threads", min=1, help="Threads of the runtime.")]


class ModelChoice(Enum):
    """The layers of the model of emulated targets, as ``records.ModelLayer`` has them."""

    value: ModelLayer
    counts = "counts"
    static = "static"
    trace = "trace"


class CalibratedModel(Enum):
    """The layers of the model that give a time, and so can be calibrated."""

    value: Layer
    static = "static"
    trace = "trace"


class ComputeChoice(Enum):
    """What an evaluator rounds to float16, as ``records.Compute`` has it."""

    value: Compute
    declared = "declared"
    fp16 = "fp16"
    fp32 = "fp32"


class HalfComputeChoice(Enum):
    """What is rounded to float16, as ``records.HalfCompute`` has it."""

    value: HalfCompute
    declared = "declared"
    fp16 = "fp16"
