"""Data: datasets, their sources, checks before work is spent on them, and calibration samples."""

from __future__ import annotations

from edgekit.data.calibration import CalibrationAudit, CalibrationSet, audit_calibration, sample_calibration
from edgekit.data.checks import check_dataset, check_labels, labels_of
from edgekit.data.dataset import ArraySplit, Dataset, Split, Task, batches
from edgekit.data.fingerprint import code_digest, data_digest
from edgekit.data.npz import read_arrays
from edgekit.data.sources import load_dataset
from edgekit.data.split import hold_out, stratified_order

__all__ = [
    "ArraySplit",
    "CalibrationAudit",
    "CalibrationSet",
    "Dataset",
    "Split",
    "Task",
    "audit_calibration",
    "batches",
    "check_dataset",
    "check_labels",
    "code_digest",
    "data_digest",
    "hold_out",
    "labels_of",
    "load_dataset",
    "read_arrays",
    "sample_calibration",
    "stratified_order",
]
