"""What the Core ML format can hold, and where its functions are."""

from __future__ import annotations

import sys

from edgekit.contracts import BackendSpec, FormatSpec, Refusal

SPEC = FormatSpec(
    name="coreml",
    title="Core ML",
    suffix=".mlpackage",
    backends=(
        BackendSpec(
            name="default",
            programs={"fp32": "fp32", "fp16": "fp32", "int8": "int8", "w8": "w8", "w6": "fp32", "w4": "w4"},
            refusals={
                "int8-dynamic": Refusal(
                    reason="Core ML has no operation that chooses activation scales at run time",
                    instead="int8 (static), or w8",
                ),
                "int16x8": Refusal(
                    reason="Core ML quantizes activations to 8 bits only", instead="int8, or w8 with fp16 activations"
                ),
            },
            not_timed_here=None
            if sys.platform == "darwin"
            else "Core ML's runtime exists on macOS only; values come from the reference evaluator, whose time means "
            "nothing",
        ),
    ),
    delegate="Core ML",
    distributions=("coremltools", "torch", "torchao"),
    export="edgekit.formats.coreml.export:export",
    open_session="edgekit.formats.coreml.session:open_session",
    inspect="edgekit.formats.coreml.inspect:inspect",
    open_session_with_compute="edgekit.formats.coreml.session:open_session_with_compute",
    analyse_half_precision="edgekit.formats.coreml.half_precision:analyse_half_precision",
    open_trace="edgekit.formats.coreml.trace:open_trace",
    open_program_trace="edgekit.formats.coreml.trace:open_program_trace",
    place="edgekit.formats.coreml.placement.predict:place",
    ask_placement="edgekit.formats.coreml.placement.plan:ask" if sys.platform == "darwin" else None,
    extra="coreml",
    options=("minimum_deployment_target", "compression", "keep_float32"),
    plan_weights="edgekit.formats.coreml.compress.plan:plan_weights",
)
