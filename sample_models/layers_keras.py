"""Layers that the Keras models share, made to compute what the PyTorch ones do.

A layer has the name that its twin has as a PyTorch module (``blocks.0.depthwise``). So the rules of a recipe mean the
same layers whichever framework trains, reports of both can be read side by side, and :mod:`sample_models.carry_weights`
needs no table.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

NORM_EPS = 1e-5
"""Of batch and layer normalization in PyTorch; Keras's own default is a hundred times larger."""

NORM_MOMENTUM = 0.9
"""Share of a moving average that a step keeps: one minus PyTorch's momentum."""


def uniform(fan_in: int) -> tf_keras.initializers.Initializer:
    """Draw starting weights and biases as PyTorch does: evenly within one over the root of ``fan_in``.

    A fresh one is needed for each weight: an initializer without a seed gives every caller the same numbers.
    """
    return tf_keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)


def convolution(
    x: tf.Tensor,
    channels: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    *,
    name: str,
    padding: tuple[int, int] | None = None,
    bias: bool = True,
) -> tf.Tensor:
    """Convolve ``[B, H, W, C_in]``, padded alike on both sides as PyTorch pads.

    Args:
        x: Images, channels last.
        channels: Of the output.
        kernel: Height and width.
        stride: In both directions.
        name: Of the layer.
        padding: Rows and columns on each side; half the kernel where it is left out.
        bias: Whether the layer has one.
    """
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    x, border = _padded(x, (rows, columns), stride, padding, name)
    fan_in = rows * columns * x.shape[-1]
    return layers.Conv2D(
        channels,
        (rows, columns),
        stride,
        padding=border,
        use_bias=bias,
        kernel_initializer=uniform(fan_in),
        bias_initializer=uniform(fan_in),
        name=name,
    )(x)


def depthwise(
    x: tf.Tensor,
    kernel: int,
    stride: int = 1,
    *,
    name: str,
    bias: bool = True,
    initializer: tf_keras.initializers.Initializer | None = None,
) -> tf.Tensor:
    """Convolve each channel of ``[B, H, W, C]`` by itself, padded by half the kernel on both sides.

    Args:
        x: Images, channels last.
        kernel: Height and width.
        stride: In both directions.
        name: Of the layer.
        bias: Whether the layer has one.
        initializer: Of the kernel; :func:`uniform` where it is left out.
    """
    x, border = _padded(x, (kernel, kernel), stride, None, name)
    return layers.DepthwiseConv2D(
        kernel,
        stride,
        padding=border,
        use_bias=bias,
        depthwise_initializer=initializer or uniform(kernel**2),
        bias_initializer=uniform(kernel**2),
        name=name,
    )(x)


def _padded(
    x: tf.Tensor, kernel: tuple[int, int], stride: int, padding: tuple[int, int] | None, name: str
) -> tuple[tf.Tensor, str]:
    """Return the input of a convolution, with a border of zeros where the layer cannot add the right one itself.

    With a stride, ``same`` adds the odd row at the far end alone, and the kernel would sit one pixel off.
    """
    rows, columns = padding or (kernel[0] // 2, kernel[1] // 2)
    if rows == columns == 0:
        return x, "valid"
    if stride == 1 and kernel == (2 * rows + 1, 2 * columns + 1):
        return x, "same"
    return layers.ZeroPadding2D((rows, columns), name=f"{name}.pad")(x), "valid"


def batch_norm(x: tf.Tensor, *, name: str, epsilon: float = NORM_EPS) -> tf.Tensor:
    """Normalize over the batch, with PyTorch's constants."""
    return layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=epsilon, name=name)(x)


def dense(x: tf.Tensor, units: int, *, name: str) -> tf.Tensor:
    """Map the last axis to ``units`` features."""
    fan_in = x.shape[-1]
    return layers.Dense(units, kernel_initializer=uniform(fan_in), bias_initializer=uniform(fan_in), name=name)(x)


def rounded(channels: float) -> int:
    """Round to a multiple of 8 that is not more than a tenth below, as the MobileNets' published code does.

    Example:
        >>> rounded(24 * 0.35)
        8
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


@tf_keras.saving.register_keras_serializable("sample_models")
class HardSigmoid(layers.Layer):
    """``relu6(x + 3) / 6`` (Howard et al. 2019); Keras's own ``hard_sigmoid`` has another slope.

    A convolution takes the addition and the ReLU6 in, so that TFLite runs one product more and nothing else.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map any shape to the same shape, element by element."""
        return tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.saving.register_keras_serializable("sample_models")
class HardSwish(layers.Layer):
    """``x · relu6(x + 3) / 6`` (Howard et al. 2019), in the order in which TFLite finds its ``HARD_SWISH``."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map any shape to the same shape, element by element."""
        return x * tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.saving.register_keras_serializable("sample_models")
class Positions(layers.Layer):
    """Add a learned vector to each token of ``[B, T, width]``."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the vectors, float32 ``[1, T, width]``."""
        start = tf_keras.initializers.RandomNormal(stddev=0.02)
        self.vectors = self.add_weight("vectors", (1, *shape[1:]), initializer=start)
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Map ``[B, T, width]`` to the same shape."""
        return x + self.vectors


@tf_keras.saving.register_keras_serializable("sample_models")
class MatMul(layers.Layer):
    """Product of two batches of matrices.

    Args:
        transpose: Whether the second matrix is transposed first.
        scale: Factor of the product.
        options: Keras's own, such as ``name``.
    """

    def __init__(self, transpose: bool = False, scale: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.transpose = transpose
        self.scale = scale

    def call(self, pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Map ``[..., M, K]`` and ``[..., K, N]`` (``[..., N, K]`` if transposed) to ``[..., M, N]``."""
        product = tf.matmul(*pair, transpose_b=self.transpose)
        return product if self.scale == 1 else product * self.scale

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal layer."""
        return {**super().get_config(), "transpose": self.transpose, "scale": self.scale}


def attention(x: tf.Tensor, heads: int, bias: tf.Tensor | None, *, name: str) -> tf.Tensor:
    """Attend from a sequence to itself, written out as in :class:`sample_models.attention_pytorch.Attention`.

    ``MultiHeadAttention`` of Keras would be one layer with kernels of three axes, which quantization-aware training
    does not know; these are dense layers.

    Args:
        x: ``[B, T, width]``.
        heads: Number of heads; divides the width.
        bias: Added to the scores, broadcast to ``[B, heads, T, T]``; a large negative number hides a token.
        name: Prefix of the layers' names.
    """
    length, width = x.shape[1:]
    query, key, value = (_heads(x, heads, name=f"{name}.{role}") for role in ("query", "key", "value"))
    scores = MatMul(transpose=True, scale=(width // heads) ** -0.5, name=f"{name}.scores")([query, key])
    if bias is not None:
        scores = layers.Add(name=f"{name}.hide")([scores, bias])
    mixed = MatMul(name=f"{name}.mix")([layers.Softmax(name=f"{name}.weights")(scores), value])
    joined = layers.Reshape((length, width), name=f"{name}.join")(layers.Permute((2, 1, 3), name=f"{name}.back")(mixed))
    return dense(joined, width, name=f"{name}.project")


def _heads(x: tf.Tensor, heads: int, *, name: str) -> tf.Tensor:
    """Project ``[B, T, width]`` and divide it into ``[B, heads, T, width / heads]``."""
    length, width = x.shape[1:]
    x = layers.Reshape((length, heads, width // heads), name=f"{name}.split")(dense(x, width, name=name))
    return layers.Permute((2, 1, 3), name=f"{name}.heads")(x)


def transformer_block(x: tf.Tensor, heads: int, hidden: int, bias: tf.Tensor | None = None, *, name: str) -> tf.Tensor:
    """Attention, then two layers a token, each beside an identity, as in ``attention_pytorch.TransformerBlock``.

    Args:
        x: ``[B, T, width]``.
        heads: Attention heads.
        hidden: Features inside the two layers.
        bias: As in :func:`attention`.
        name: Prefix of the layers' names.
    """
    attended = attention(layer_norm(x, name=f"{name}.norm1"), heads, bias, name=f"{name}.attention")
    x = layers.Add(name=f"{name}.add1")([x, attended])
    y = dense(layer_norm(x, name=f"{name}.norm2"), hidden, name=f"{name}.expand")
    y = dense(layers.Activation("gelu", name=f"{name}.activation")(y), x.shape[-1], name=f"{name}.reduce")
    return layers.Add(name=f"{name}.add2")([x, y])


def layer_norm(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Normalize over the last axis, with PyTorch's constant."""
    return layers.LayerNormalization(epsilon=NORM_EPS, name=name)(x)
