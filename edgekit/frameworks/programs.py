"""What a program's folder holds, whichever framework writes it: reference and calibration samples, figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from edgekit.data.calibration import CalibrationSet, audit_calibration, sample_calibration
from edgekit.data.dataset import Array, Dataset
from edgekit.errors import DataError
from edgekit.frameworks.requests import ProgramRequest
from edgekit.process import emit
from edgekit.program.quantization import output_quantizations
from edgekit.records import LayerError, Precision, WeightHistogram, dumps

EVALUATION_BATCH = 32
"""Samples run at once where a model takes any batch: more gains little on a CPU and costs memory."""


def draw_calibration(
    request: ProgramRequest, dataset: Dataset | None, needed_by: Sequence[Precision]
) -> CalibrationSet | None:
    """Draw the samples that scales are fixed from; None without data where nothing needs them.

    Args:
        request: Its precision and data.
        dataset: As loaded; None: there are no data.
        needed_by: Precisions whose scales come from samples.

    Raises:
        DataError: The precision needs samples and there are none.
    """
    if request.precision in needed_by:
        dataset = require_calibration(dataset, request.precision)
    if dataset is None or request.data is None:
        return None
    return sample_calibration(dataset, request.data.calibration_samples, request.data.seed)


def require_calibration(dataset: Dataset | None, precision: str) -> Dataset:
    """Return the dataset.

    Raises:
        DataError: There is none, and fixed activation scales need samples.
    """
    if dataset is None:
        raise DataError(
            f"{precision} fixes the scales of activations from real samples: expected a data section (or "
            "--calibration-data); received none. Give samples, or choose int8-dynamic or w8, which need none"
        )
    return dataset


def calibration_warnings(
    request: ProgramRequest, drawn: CalibrationSet | None, dataset: Dataset | None, used_by: Sequence[Precision]
) -> list[str]:
    """Say what is doubtful about samples that scales are fixed from; nothing where the precision fixes none."""
    if request.precision not in used_by or drawn is None or dataset is None:
        return []
    return list(audit_calibration(drawn, dataset).warnings)


def write_reference(
    path: Path,
    inputs: Sequence[Array],
    labels: Array | None,
    of_source: Sequence[object],
    of_program: Sequence[object],
) -> None:
    """Write the verification samples and what model and program make of them; see ``records.Program.reference``."""
    arrays: dict[str, Any] = {f"input_{index}": array for index, array in enumerate(inputs)}
    arrays |= {f"source_output_{index}": value for index, value in enumerate(of_source)}
    arrays |= {f"program_output_{index}": value for index, value in enumerate(of_program)}
    if labels is not None:
        arrays["label"] = labels
    np.savez(path, allow_pickle=False, **arrays)


def write_calibration(path: Path, inputs: Sequence[Array]) -> None:
    """Write calibration samples; see ``records.Program.calibration``."""
    arrays: dict[str, Any] = {f"input_{index}": array for index, array in enumerate(inputs)}
    np.savez(path, allow_pickle=False, **arrays)


def write_analysis(folder: Path, histograms: Iterable[WeightHistogram], errors: Iterable[LayerError] | None) -> None:
    """Write ``weight_histograms.json`` and, for a quantized program, ``layer_errors.json``."""
    (folder / "weight_histograms.json").write_text(dumps(list(histograms)), encoding="utf-8")
    if errors is not None:
        (folder / "layer_errors.json").write_text(dumps(list(errors)), encoding="utf-8")


def output_steps(program: ExportedProgram) -> tuple[float | None, ...]:
    """Return the quantization step of each output, None where it is not quantized."""
    return tuple(None if found is None else found.scale[0] for found in output_quantizations(program))


def top1_accuracy(scores: NDArray[Any], labels: NDArray[Any] | None) -> float | None:
    """Return the share of samples whose highest class is their label; None where there are no classes.

    Args:
        scores: First output ``[N, C]``.
        labels: Class indices ``[N]``.
    """
    if labels is None or scores.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        return None
    return float(np.mean(scores.argmax(axis=1) == labels))


def report_progress(phase: str) -> None:
    """Tell the parent process what is being done to the program."""
    emit({"type": "progress", "stage": "program", "phase": phase})
