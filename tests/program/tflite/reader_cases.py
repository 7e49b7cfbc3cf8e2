"""Operators by family, each as a tiny TensorFlow function with the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from reader_models import Spec, tf

_RNG = np.random.default_rng(5)
IMAGE: Spec = (1, 8, 8, 4)
ROWS: Spec = (1, 5, 12)


@dataclass(frozen=True)
class Case:
    """A function of tensors."""

    function: Callable[..., Any]
    shapes: tuple[Spec, ...]
    dtypes: tuple[Any, ...] | None = None


def weights(*shape: int) -> Any:
    """Constant numbers."""
    return tf.constant(_RNG.normal(size=shape).astype(np.float32) * 0.5)


def pooled(x: Any) -> Any:
    """An image that the reader holds with channels first."""
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def _blocks(x: Any, activation: Callable[[Any], Any] = tf.identity) -> Any:
    blocks = tf.space_to_batch(x, [2, 2], [[2, 3], [2, 3]])
    blocks = activation(tf.nn.conv2d(blocks, K33, 1, "VALID"))
    return tf.batch_to_space(blocks, [2, 2], [[0, 1], [0, 1]])


def _resize(kind: str, corners: bool, half: bool, size: tuple[int, int]) -> Case:
    operation = tf.raw_ops.ResizeBilinear if kind == "bilinear" else tf.raw_ops.ResizeNearestNeighbor
    return Case(lambda x: operation(images=x, size=size, align_corners=corners, half_pixel_centers=half), (IMAGE,))


def _heads(x: Any) -> Any:
    return tf.transpose(tf.reshape(x, [1, 6, 3, 4]), [0, 2, 1, 3])


def _attention(x: Any) -> Any:
    return tf.matmul(tf.nn.softmax(tf.matmul(_heads(x), _heads(x), transpose_b=True) / 2.0), _heads(x))


def _layer_norm(x: Any) -> Any:
    mean = tf.reduce_mean(x, -1, keepdims=True)
    spread = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(spread + 1e-3) * weights(12) + weights(12)


K33, DEPTHWISE, TWICE, TRANSPOSED, DENSE = (
    weights(3, 3, 4, 6), weights(3, 3, 4, 1), weights(3, 3, 4, 2), weights(3, 3, 5, 4), weights(12, 7),
)  # fmt: skip
_PAD = [[0, 0], [1, 2], [2, 1], [0, 0]]
_INDICES = (tf.float32, tf.int32)

CASES: dict[str, Case] = {
    # convolutions
    "conv_same": Case(lambda x: tf.nn.relu(tf.nn.conv2d(x, K33, 1, "SAME") + weights(6)), (IMAGE,)),
    "conv_stride": Case(lambda x: tf.nn.relu6(tf.nn.conv2d(x, K33, 2, "SAME") + weights(6)), (IMAGE,)),
    "conv_dilated": Case(lambda x: tf.nn.conv2d(x, K33, 1, "SAME", dilations=2), (IMAGE,)),
    "conv_of_blocks": Case(_blocks, ((1, 9, 9, 4),)),
    "conv_of_blocks_activated": Case(lambda x: _blocks(x, tf.sigmoid), ((1, 9, 9, 4),)),
    "conv_padded": Case(lambda x: tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), K33, 2, "VALID"), (IMAGE,)),
    "conv_padded_unevenly": Case(
        lambda x: tf.nn.conv2d(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), K33, 2, "VALID"), (IMAGE,)
    ),
    "depthwise": Case(lambda x: tf.nn.relu(tf.nn.depthwise_conv2d(x, DEPTHWISE, [1, 1, 1, 1], "SAME")), (IMAGE,)),
    "depthwise_twice": Case(lambda x: tf.nn.depthwise_conv2d(x, TWICE, [1, 2, 2, 1], "SAME"), (IMAGE,)),
    "transposed_same": Case(lambda x: tf.nn.conv2d_transpose(x, TRANSPOSED, [1, 16, 16, 5], 2, "SAME"), (IMAGE,)),
    "transposed_valid": Case(lambda x: tf.nn.conv2d_transpose(x, TRANSPOSED, [1, 17, 17, 5], 2, "VALID"), (IMAGE,)),
    "transposed_wide": Case(lambda x: tf.nn.conv2d_transpose(x, TRANSPOSED, [1, 23, 23, 5], 3, "SAME"), (IMAGE,)),
    "conv_1d": Case(lambda x: tf.nn.conv1d(x, weights(3, 4, 6), 1, "SAME"), ((1, 10, 4),)),
    "conv_3d": Case(lambda x: tf.nn.conv3d(x, weights(2, 3, 3, 4, 5), [1] * 5, "SAME"), ((1, 4, 6, 6, 4),)),
    # matrix products
    "dense": Case(lambda x: tf.nn.relu(tf.matmul(x, DENSE) + weights(7)), ((1, 12),)),
    "dense_rows": Case(lambda x: tf.tensordot(x, DENSE, 1) + weights(7), (ROWS,)),
    "batch_matmul": Case(tf.matmul, ((2, 3, 4, 5), (2, 3, 5, 6))),
    "batch_matmul_turned": Case(lambda x, y: tf.matmul(x, y, transpose_b=True), ((2, 4, 5), (2, 6, 5))),
    "attention": Case(_attention, ((1, 6, 12),)),
    "layer_norm": Case(_layer_norm, (ROWS,)),
    # pooling and reductions
    "max_pool": Case(pooled, (IMAGE,)),
    "max_pool_same": Case(lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), (IMAGE,)),
    "average_pool": Case(lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), (IMAGE,)),
    "average_pool_same": Case(lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), (IMAGE,)),
    "average_pool_whole": Case(lambda x: tf.nn.avg_pool2d(x, 8, 8, "VALID"), (IMAGE,)),
    "mean_image": Case(lambda x: tf.reduce_mean(x, [1, 2]), (IMAGE,)),
    "mean_steps": Case(lambda x: tf.reduce_mean(x, 1), ((1, 6, 5),)),
    "mean_channels": Case(lambda x: tf.reduce_mean(x, -1), (IMAGE,)),
    "mean_whole_sample": Case(lambda x: tf.reduce_mean(x, [0, 1, 2]), (IMAGE,)),
    "sum": Case(lambda x: tf.reduce_sum(x, [1, 2]), (IMAGE,)),
    "max": Case(lambda x: tf.reduce_max(x, [1, 2]), (IMAGE,)),
    "min": Case(lambda x: tf.reduce_min(x, -1, keepdims=True), (IMAGE,)),
    "prod": Case(lambda x: tf.reduce_prod(x, 1), ((1, 3, 4),)),
    "any": Case(lambda x: tf.cast(tf.reduce_any(x > 0.5, 1), tf.float32), ((1, 3, 4),)),
    "all": Case(lambda x: tf.cast(tf.reduce_all(x > -0.5, 1), tf.float32), ((1, 3, 4),)),
    "local_response": Case(lambda x: tf.nn.local_response_normalization(x, 2, 1.0, 0.5, 0.7), (IMAGE,)),
    # arithmetic
    "div": Case(lambda x, y: x / (tf.abs(y) + 0.3), ((1, 4, 4, 4), (1, 4, 4, 4))),
    "broadcast_channels": Case(tf.add, ((1, 4, 4, 4), (1, 1, 1, 4))),
    "broadcast_rank": Case(lambda x, y: pooled(x) + y, ((1, 4, 4, 4), (2, 4))),
    "constants_by_channel": Case(lambda x: pooled(x) * weights(4) + weights(2, 1, 4), ((1, 4, 4, 4),)),
    "pow": Case(lambda x: tf.pow(tf.abs(x) + 0.1, 2.5), ((1, 4),)),
    "floor_div": Case(lambda x, y: tf.math.floordiv(x, tf.abs(y) + 0.3), ((1, 4), (1, 4))),
    "floor_mod": Case(lambda x, y: tf.math.floormod(x, tf.abs(y) + 0.3), ((1, 4), (1, 4))),
    "select": Case(lambda x, y: tf.where(x > y, x, y * 2), ((1, 4, 4), (1, 4, 4))),
    "compare": Case(
        lambda x, y: tf.cast(
            tf.logical_or(tf.equal(x, y), tf.logical_and(x >= y, tf.logical_not(x <= y - 1))), tf.float32
        ),
        ((1, 4, 4), (1, 4, 4)),
    ),
    "add_n": Case(lambda x, y: tf.add_n([x, y, x]), ((1, 4), (1, 4))),
    "prelu": Case(lambda x: tf.nn.relu(x) - weights(4) * tf.nn.relu(-x), (IMAGE,)),
    # moving
    "slice": Case(lambda x: tf.slice(x, [0, 1, 2, 0], [1, 3, -1, 2]), (IMAGE,)),
    "strided_slice": Case(lambda x: x[:, 1:7:2, ::-1, :3], (IMAGE,)),
    "strided_slice_ellipsis": Case(lambda x: x[0, ..., 1:], (IMAGE,)),
    "strided_slice_new_axis": Case(lambda x: x[:, tf.newaxis, -1, 2:5], ((1, 8, 8),)),
    "strided_slice_of_image": Case(lambda x: pooled(x)[:, 1:, :, 2], (IMAGE,)),
    "split": Case(lambda x: tf.split(x, 2, -1), (IMAGE,)),
    "split_sizes": Case(lambda x: tf.split(pooled(x), [1, 2, 1], -1), (IMAGE,)),
    "stack": Case(lambda x, y: tf.stack([x, y], 1), ((1, 4), (1, 4))),
    "stack_last": Case(lambda x, y: tf.stack([x, y, x], -1), ((1, 4), (1, 4))),
    "unstack": Case(lambda x: tf.unstack(x, axis=1), ((1, 3, 4),)),
    "concat": Case(lambda x, y: tf.concat([pooled(x), y * 3, weights(1, 4, 4, 2)], -1), (IMAGE, (1, 4, 4, 3))),
    "tile": Case(lambda x: tf.tile(pooled(x), [1, 2, 1, 3]), (IMAGE,)),
    "broadcast_to": Case(lambda x: tf.broadcast_to(x, [2, 3, 4]), ((3, 1),)),
    "reverse": Case(lambda x: tf.reverse(pooled(x), [3]), (IMAGE,)),
    "pad": Case(lambda x: tf.pad(x, _PAD, constant_values=1.5), (IMAGE,)),
    "mirror_reflect": Case(lambda x: tf.pad(x, _PAD, "REFLECT"), (IMAGE,)),
    "mirror_symmetric": Case(lambda x: tf.pad(pooled(x), _PAD, "SYMMETRIC"), (IMAGE,)),
    "space_to_depth": Case(lambda x: tf.nn.space_to_depth(x, 2), (IMAGE,)),
    "space_to_depth_of_image": Case(lambda x: tf.nn.space_to_depth(pooled(x), 2), (IMAGE,)),
    "depth_to_space": Case(lambda x: tf.nn.depth_to_space(x, 2), (IMAGE,)),
    "depth_to_space_of_image": Case(lambda x: tf.nn.depth_to_space(pooled(x), 2), (IMAGE,)),
    "space_to_batch": Case(lambda x: tf.space_to_batch(x, [2, 2], [[1, 0], [0, 1]]), ((1, 9, 9, 4),)),
    "batch_to_space": Case(lambda x: tf.batch_to_space(x, [2, 2], [[1, 0], [0, 1]]), ((4, 4, 4, 3),)),
    "transpose": Case(lambda x: tf.transpose(x, [0, 2, 1, 3]), (IMAGE,)),
    "transpose_to_channels_first": Case(lambda x: tf.transpose(pooled(x), [0, 3, 1, 2]), (IMAGE,)),
    "reshape": Case(lambda x: tf.reshape(pooled(x), [1, -1]), (IMAGE,)),
    "squeeze": Case(lambda x: tf.squeeze(tf.expand_dims(x, 2), [0]), ((1, 4, 3),)),
    # looking up
    "gather": Case(lambda x: tf.gather(pooled(x), [2, 0, 1], axis=3), (IMAGE,)),
    "gather_one": Case(lambda x: tf.gather(x, 2, axis=1), ((1, 5, 3),)),
    "gather_table": Case(lambda x: tf.gather(x, [[2, 0], [1, 1]], axis=2), ((1, 5, 3),)),
    "gather_nd": Case(lambda x: tf.gather_nd(x, [[0, 2], [0, 1]]), ((1, 5, 3),)),
    "gather_batch": Case(lambda x, i: tf.gather(x, i, axis=2, batch_dims=1), ((2, 5, 3), (2, 4)), _INDICES),
    "embedding": Case(
        lambda i: tf.tensordot(tf.nn.embedding_lookup(weights(10, 12), i), DENSE, 1), ((1, 7),), (tf.int32,)
    ),
    "one_hot": Case(lambda i: tf.one_hot(i, 5, on_value=2.0, off_value=-1.0), ((1, 7),), (tf.int32,)),
    "one_hot_inner": Case(lambda i: tf.one_hot(i, 5, axis=1), ((1, 7),), (tf.int32,)),
    "top_k": Case(lambda x: tf.math.top_k(x, 3), ((1, 9),)),
    "arg_max": Case(lambda x: tf.argmax(x, -1), (IMAGE,)),
    "arg_max_of_image": Case(lambda x: tf.argmax(pooled(x), 1, output_type=tf.int32), (IMAGE,)),
    "arg_min": Case(lambda x: tf.argmin(pooled(x), -1), (IMAGE,)),
    "cumsum": Case(lambda x: tf.cumsum(x, 1), ((1, 7, 2),)),
    "cumsum_from_end": Case(lambda x: tf.cumsum(x, 1, exclusive=True, reverse=True), ((1, 7, 2),)),
    "made": Case(
        lambda x: x + tf.fill(tf.shape(x), 2.0) + tf.zeros_like(x) + tf.cast(tf.range(4), tf.float32), ((1, 4),)
    ),
}
for _name, _function in {
    "abs": tf.abs, "ceil": tf.math.ceil, "cos": tf.cos, "elu": tf.nn.elu, "exp": tf.exp, "floor": tf.floor,
    "gelu": tf.nn.gelu, "gelu_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "hard_swish": lambda x: x * tf.nn.relu6(x + 3) / 6, "l2_normalize": lambda x: tf.nn.l2_normalize(x, -1),
    "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.1), "log": lambda x: tf.math.log(tf.abs(x) + 0.5),
    "log_softmax": tf.nn.log_softmax, "neg": tf.negative, "relu": tf.nn.relu, "relu6": tf.nn.relu6,
    "round": tf.round, "rsqrt": lambda x: tf.math.rsqrt(tf.abs(x) + 0.1), "sigmoid": tf.sigmoid, "sign": tf.sign,
    "sin": tf.sin, "softmax": tf.nn.softmax, "softplus": tf.math.softplus,
    "sqrt": lambda x: tf.sqrt(tf.abs(x) + 0.1), "square": tf.square, "tanh": tf.tanh,
}.items():  # fmt: skip
    CASES[_name] = Case(_function, ((1, 4, 4, 4),))
for _name, _function in {
    "add": tf.add, "atan2": tf.math.atan2, "maximum": tf.maximum, "minimum": tf.minimum, "mul": tf.multiply,
    "squared_difference": tf.math.squared_difference, "sub": tf.subtract,
}.items():  # fmt: skip
    CASES[_name] = Case(_function, ((1, 4, 4, 4), (1, 4, 4, 4)))
for _size in ((16, 16), (5, 11), (4, 4)):
    for _corners, _half in ((False, False), (True, False), (False, True), (True, True)):
        _label = f"{'corners_' * _corners}{'half_' * _half}{_size[0]}"
        CASES[f"resize_nearest_{_label}"] = _resize("nearest", _corners, _half, _size)
        if not (_corners and _half):
            CASES[f"resize_bilinear_{_label}"] = _resize("bilinear", _corners, _half, _size)
