"""The Keras framework: what it reads, and where its functions are. Data only, nothing heavy is imported."""

from __future__ import annotations

from edgekit.contracts import FrameworkSpec, Refusal

SPEC = FrameworkSpec(
    name="keras",
    title="Keras",
    suffixes=(".keras", ".h5", ".hdf5", ".tflite"),
    distributions=(
        "tensorflow",
        "tf-keras",
        "keras",
        "tensorflow-model-optimization",
        "ai-edge-litert",
        "ai-edge-quantizer",
        "torch",
    ),
    describe="edgekit.frameworks.keras.describe:describe",
    train="edgekit.frameworks.keras.train:train",
    to_program="edgekit.frameworks.keras.to_program:to_program",
    extra="keras",
    folder_marker="saved_model.pb",
    own_scales=(".tflite",),
    imports=("tensorflow", "tf_keras", "keras"),
    programs={("tflite", "fp16"): "fp16", ("tflite", "int16x8"): "int16x8"},
    refusals={
        "quantize.calibration: histogram": Refusal(
            reason="TensorFlow's converter fixes scales from the smallest and largest value of the samples",
            instead="calibration: minmax, or mode: qat, which learns the ranges",
        ),
    },
)
