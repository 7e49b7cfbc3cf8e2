"""The MobileNets that XNNPACK's README timed, as TFLite files: `python -m benchmarks.fidelity.mobilenets FOLDER`.

Written after the operator lists in google/XNNPACK `models/mobilenet-*.cc` (43cb20e6), not after Keras's: there is no
padding operator of its own, the classifier has 1001 outputs and no softmax, and in v3 a squeeze-and-excitation's hard
sigmoid is a clamp of its second convolution (its slope is folded into the weights). Weights are random, as they were
there. Batch norm is folded, as it was there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sample_models.mobilenet_v3_small.blocks import BLOCKS as V3_SMALL_BLOCKS

IMAGE = 224
CLASSES = 1001
NETWORKS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
CALIBRATION_SAMPLES = 4

# Channels after the pointwise convolution and stride of the depthwise one before it (Howard et al. 2017, table 1).
V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# Expansion, channels, repeats, stride of the first (Sandler et al. 2018, table 2).
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Kernel, expanded channels, channels, squeeze-and-excitation, hard swish, stride (Howard et al. 2019, tables 1 and 2).
V3_LARGE_BLOCKS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class _Layers:
    """Keras layers with seeded weights; TensorFlow is loaded when the first one is made."""

    def __init__(self) -> None:
        import tensorflow as tf
        import tf_keras

        tf_keras.utils.set_random_seed(0)
        self.tf, self.keras = tf, tf_keras

    def input(self) -> Any:
        return self.keras.Input((IMAGE, IMAGE, 3), batch_size=1)

    def activate(self, x: Any, name: str | None) -> Any:
        if name == "hard_swish":
            # The form that the TFLite converter knows as one HARD_SWISH.
            return x * self.tf.nn.relu6(x + 3.0) * (1.0 / 6.0)
        return x if name is None else self.keras.layers.Activation(getattr(self.tf.nn, name))(x)

    def conv(self, x: Any, channels: int, kernel: int = 1, stride: int = 1, act: str | None = None) -> Any:
        layer = self.keras.layers.Conv2D(channels, kernel, stride, "same", bias_initializer="glorot_uniform")
        return self.activate(layer(x), act)

    def depthwise(self, x: Any, kernel: int = 3, stride: int = 1, act: str | None = None) -> Any:
        layer = self.keras.layers.DepthwiseConv2D(kernel, stride, "same", bias_initializer="glorot_uniform")
        return self.activate(layer(x), act)

    def pool(self, x: Any) -> Any:
        return self.keras.layers.GlobalAveragePooling2D(keepdims=True)(x)

    def excite(self, x: Any, channels: int) -> Any:
        """Squeeze and excite. relu6 stands for the clamp to [0, 1]: the same kernel with another bound."""
        squeezed = self.conv(self.pool(x), _divisible(channels / 4), act="relu")
        return x * self.conv(squeezed, channels, act="relu6")

    def model(self, image: Any, x: Any) -> Any:
        return self.keras.Model(image, x)


def _divisible(channels: float) -> int:
    """Round to a multiple of 8 that is at least 8 and loses at most a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _v1() -> Any:
    net = _Layers()
    image = net.input()
    x = net.conv(image, 32, 3, 2, "relu6")
    for channels, stride in V1_BLOCKS:
        x = net.conv(net.depthwise(x, 3, stride, "relu6"), channels, act="relu6")
    return net.model(image, net.conv(net.pool(x), CLASSES))


def _v2() -> Any:
    net = _Layers()
    image = net.input()
    x = net.conv(image, 32, 3, 2, "relu6")
    for expansion, channels, repeats, first_stride in V2_STAGES:
        for block in range(repeats):
            stride = first_stride if block == 0 else 1
            entry = x
            if expansion > 1:
                x = net.conv(x, expansion * x.shape[-1], act="relu6")
            x = net.conv(net.depthwise(x, 3, stride, "relu6"), channels)
            x = x + entry if stride == 1 and entry.shape[-1] == channels else x
    x = net.conv(x, 1280, act="relu6")
    return net.model(image, net.conv(net.pool(x), CLASSES))


def _v3(blocks: tuple[tuple[int, int, int, bool, bool, int], ...], last: int, hidden: int) -> Any:
    net = _Layers()
    image = net.input()
    x = net.conv(image, 16, 3, 2, "hard_swish")
    for kernel, expanded, channels, excited, swished, stride in blocks:
        entry, act = x, "hard_swish" if swished else "relu"
        if expanded != x.shape[-1]:
            x = net.conv(x, expanded, act=act)
        x = net.depthwise(x, kernel, stride, act)
        x = net.conv(net.excite(x, expanded) if excited else x, channels)
        x = x + entry if stride == 1 and entry.shape[-1] == channels else x
    x = net.pool(net.conv(x, last, act="hard_swish"))
    return net.model(image, net.conv(net.conv(x, hidden, act="hard_swish"), CLASSES))


BUILDERS: dict[str, Callable[[], Any]] = {
    "mobilenet_v1": _v1,
    "mobilenet_v2": _v2,
    "mobilenet_v3_large": lambda: _v3(V3_LARGE_BLOCKS, 960, 1280),
    "mobilenet_v3_small": lambda: _v3(V3_SMALL_BLOCKS, 576, 1024),
}


def build(name: str, precision: str) -> bytes:
    """Build one network as a TFLite file.

    Args:
        name: One of ``NETWORKS``.
        precision: ``fp32``, or ``int8`` (weights, activations, input and output; calibrated on noise).
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(BUILDERS[name]())
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = _noise
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _noise() -> Iterator[list[np.ndarray[Any, Any]]]:
    generator = np.random.default_rng(0)
    for _ in range(CALIBRATION_SAMPLES):
        yield [generator.uniform(-1, 1, (1, IMAGE, IMAGE, 3)).astype(np.float32)]


def ensure(name: str, precision: str, folder: Path) -> Path:
    """Return the file of a network, built where it is not there yet."""
    path = folder / f"{name}_{precision}.tflite"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(build(name, precision))
        partial.replace(path)
    return path


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in NETWORKS:
        for precision in ("fp32", "int8"):
            path = ensure(name, precision, Path(sys.argv[1]))
            sys.stdout.write(f"{path} {path.stat().st_size}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
