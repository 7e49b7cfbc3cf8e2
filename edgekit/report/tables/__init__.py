"""Tables for terminals. Each function returns a rich renderable and prints nothing.

Text that comes from a model, a path or a tool goes in as ``rich.text.Text``: a layer called ``[red]`` is no markup.
"""

from __future__ import annotations

from edgekit.report.tables.artifact import (
    artifact_comparison_table,
    audit_table,
    emulated_operator_table,
    operator_table,
    operator_time_table,
    output_parity_table,
    predicted_operator_table,
    profile_table,
    profiled_operators_table,
)
from edgekit.report.tables.build import (
    compare_table,
    facts_table,
    parity_table,
    plan_table,
    summary_table,
    verdict_table,
)
from edgekit.report.tables.distances import operator_distance_table
from edgekit.report.tables.half_precision import half_precision_table
from edgekit.report.tables.machine import calibration_table, diagnosis_table, doctor_table, targets_table
from edgekit.report.tables.placement import placement_table

__all__ = [
    "artifact_comparison_table",
    "audit_table",
    "calibration_table",
    "compare_table",
    "diagnosis_table",
    "doctor_table",
    "emulated_operator_table",
    "facts_table",
    "half_precision_table",
    "operator_distance_table",
    "operator_table",
    "operator_time_table",
    "output_parity_table",
    "parity_table",
    "placement_table",
    "plan_table",
    "predicted_operator_table",
    "profile_table",
    "profiled_operators_table",
    "summary_table",
    "targets_table",
    "verdict_table",
]
