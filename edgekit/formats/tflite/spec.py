"""What the TFLite format can hold, and where its functions are."""

from __future__ import annotations

from edgekit.contracts import BackendSpec, FormatSpec, Refusal

SPEC = FormatSpec(
    name="tflite",
    title="TensorFlow Lite (LiteRT)",
    suffix=".tflite",
    backends=(
        BackendSpec(
            name="xnnpack",
            programs={
                "fp32": "fp32",
                "fp16": "fp32",
                "int8": "int8",
                "int8-dynamic": "int8-dynamic",
                "w8": "w8",
                "w4": "w4",
                "int16x8": "fp32",
            },
            refusals={
                "w6": Refusal(
                    reason="TFLite has integers of 4 and 8 bits; six bits exist as palettes in Core ML",
                    instead="w8 or w4, or coreml at w6",
                ),
            },
        ),
    ),
    delegate="XNNPACK",
    distributions=("torch", "torchao", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer"),
    export="edgekit.formats.tflite.export:export",
    open_session="edgekit.formats.tflite.session:open_session",
    inspect="edgekit.formats.tflite.inspect:inspect",
    extra="tflite",
)
