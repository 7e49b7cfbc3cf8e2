"""What the ONNX format can hold, and where its functions are."""

from __future__ import annotations

from edgekit.contracts import BackendSpec, FormatSpec, Refusal

SPEC = FormatSpec(
    name="onnx",
    title="ONNX (ONNX Runtime)",
    suffix=".onnx",
    backends=(
        BackendSpec(
            name="cpu",
            programs={
                "fp32": "fp32",
                "fp16": "fp32",
                "int8": "int8",
                "int8-dynamic": "int8-dynamic",
                "w8": "w8",
                "w4": "w4",
            },
            refusals={
                "w6": Refusal(
                    reason="ONNX has integers of 4 and 8 bits; six bits exist as palettes in Core ML",
                    instead="w8 or w4, or coreml at w6",
                ),
                "int16x8": Refusal(
                    reason="ONNX Runtime's CPU has no convolution or matrix product on int16 activations: they would "
                    "be dequantized and computed in float32",
                    instead="int8, or tflite at int16x8",
                ),
            },
        ),
    ),
    delegate="CPUExecutionProvider",
    distributions=("torch", "torchao", "onnx", "onnxruntime", "onnxscript"),
    export="edgekit.formats.onnx.export:export",
    open_session="edgekit.formats.onnx.session:open_session",
    inspect="edgekit.formats.onnx.inspect:inspect",
    extra="onnx",
)
