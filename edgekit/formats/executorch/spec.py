"""What the ExecuTorch format can hold, and where its functions are."""

from __future__ import annotations

import sys

from edgekit.contracts import BackendSpec, FormatSpec, Refusal
from edgekit.records import Precision

_NO_INT4 = Refusal(
    reason="the runtime's dequantize kernel reads bytes, so 4-bit weights would take as much room as 8-bit ones, with "
    "less accuracy; XNNPACK's own 4-bit kernels also quantize activations at run time",
    instead="w8, int8-dynamic, or w4 in Core ML or TFLite",
)
_NO_INT6 = Refusal(
    reason="no kernel reads 6-bit weights; six bits exist as palettes in Core ML", instead="w8, or coreml at w6"
)
_NO_INT16 = Refusal(
    reason="neither XNNPACK nor the portable kernels compute with 16-bit integer activations",
    instead="int8, or int16x8 in TFLite",
)
_EVERYWHERE: dict[Precision, Precision] = {
    "fp32": "fp32",
    "fp16": "fp32",
    "int8": "int8",
    "int8-dynamic": "int8-dynamic",
    "w8": "w8",
}
_NOWHERE: dict[Precision, Refusal] = {"w6": _NO_INT6, "w4": _NO_INT4, "int16x8": _NO_INT16}
_COREML_WEIGHTS = Refusal(
    reason="the Core ML delegate turns folded integer weights back into floats",
    instead="the coreml format, which compresses weights, or int8 here",
)

SPEC = FormatSpec(
    name="executorch",
    title="ExecuTorch",
    suffix=".pte",
    backends=(
        BackendSpec(name="xnnpack", programs=_EVERYWHERE, refusals=_NOWHERE),
        BackendSpec(name="portable", programs=_EVERYWHERE, refusals=_NOWHERE),
        BackendSpec(
            name="coreml",
            programs={"fp32": "fp32", "fp16": "fp32", "int8": "int8"},
            refusals={
                "int8-dynamic": Refusal(
                    reason="Core ML cannot choose activation scales at run time",
                    instead="int8, or w8 in the coreml format",
                ),
                "w8": _COREML_WEIGHTS,
                "w6": _COREML_WEIGHTS,
                "w4": _COREML_WEIGHTS,
                "int16x8": _NO_INT16,
            },
            not_here=None if sys.platform == "darwin" else "the Core ML delegate exists on Apple's systems only",
        ),
    ),
    delegate="XNNPACK",
    distributions=("executorch", "torch", "torchao"),
    export="edgekit.formats.executorch.export:export",
    open_session="edgekit.formats.executorch.session:open_session",
    inspect="edgekit.formats.executorch.inspect:inspect",
    extra="executorch",
    options=("backend", "minimum_deployment_target"),
)
