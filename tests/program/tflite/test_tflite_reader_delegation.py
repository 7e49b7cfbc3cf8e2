"""What ExecuTorch makes of programs that were read: one delegate, nothing left out, the integers of the file."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from executorch.runtime import Runtime
    from reader_cases import CASES, DENSE, pooled, weights
    from reader_models import convert, decibels, output_steps, random_input, read_program, run_litert, tf

    from edgekit.formats.executorch.container import read_pte
    from edgekit.formats.executorch.lowering import lower
    from edgekit.formats.executorch.operators import read_operators

pytestmark = pytest.mark.filterwarnings("ignore")


def lowered(path: Path, precision: str, folder: Path):
    """Return what was read, the operators of the ExecuTorch program, how many delegates, and its method."""
    torch.set_num_threads(1)
    read = read_program(path)
    result = lower(read.program, "xnnpack", precision, interface="{}", coreml_partitioner=list)
    file = folder / "m.pte"
    file.write_bytes(result.data)
    pte = read_pte(file)
    return read, read_operators(pte, result.lowering), len(pte.plan.delegates), Runtime.get().load_program(file)


def run_method(program, inputs) -> list[np.ndarray]:
    method = program.load_method("forward")
    return [value.numpy() for value in method.execute([torch.from_numpy(array) for array in inputs])]


def residual_se(x):
    y = tf.nn.relu6(tf.nn.conv2d(x, weights(3, 3, 4, 8), 2, "SAME") + weights(8))
    z = tf.nn.depthwise_conv2d(y, weights(3, 3, 8, 1), [1, 1, 1, 1], "SAME") + weights(8)
    z = z * tf.nn.relu6(z + 3) / 6
    scale = tf.reduce_mean(z, [1, 2], keepdims=True)
    scale = tf.nn.relu6(tf.nn.conv2d(scale, weights(1, 1, 8, 8), 1, "SAME") + 3) / 6
    z = z * scale + y
    z = tf.nn.relu(tf.nn.conv2d(z, weights(1, 1, 8, 12), 1, "VALID"))
    return tf.nn.softmax(tf.matmul(tf.reduce_mean(z, [1, 2]), DENSE))


def encoder_decoder(x):
    y = tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 4, 4), 1, "SAME"))
    z = pooled(y)
    up = tf.raw_ops.ResizeBilinear(images=z, size=[16, 16], half_pixel_centers=True)
    near = tf.raw_ops.ResizeNearestNeighbor(images=z, size=[16, 16], half_pixel_centers=True)
    wide = tf.nn.conv2d_transpose(z, weights(3, 3, 5, 4), [1, 16, 16, 5], 2, "SAME")
    return tf.sigmoid(tf.nn.conv2d(tf.concat([y, up, near, wide], -1), weights(1, 1, 17, 2), 1, "SAME"))


NETS = {
    "residual_se": (residual_se, ((1, 16, 16, 4),)),
    "encoder_decoder": (encoder_decoder, ((1, 16, 16, 4),)),
}
# fmt: off
PATTERNS = (
    "attention", "average_pool", "average_pool_same", "average_pool_whole", "concat", "constants_by_channel",
    "conv_of_blocks", "conv_padded_unevenly", "depth_to_space_of_image", "depthwise_twice", "dense_rows", "elu",
    "layer_norm", "max", "max_pool_same", "mean_channels", "mean_image", "mean_steps", "mean_whole_sample",
    "mirror_reflect", "prelu", "resize_bilinear_16", "resize_nearest_16", "split_sizes", "stack_last",
    "strided_slice_of_image", "transposed_same", "transposed_valid",
)
# fmt: on


def every_pattern(*inputs):
    """All patterns side by side, one lowering for all."""
    results, left = [], list(inputs)
    for name in PATTERNS:
        case = CASES[name]
        found = case.function(*[left.pop(0) for _ in case.shapes])
        results.extend(found if isinstance(found, list | tuple) else [found])
    return results


NETS["every_pattern"] = (every_pattern, tuple(shape for name in PATTERNS for shape in CASES[name].shapes))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "int8") for name in NETS),
        ("encoder_decoder", "float"),
        pytest.param("every_pattern", "float", marks=pytest.mark.slow),
    ],
)
def test_program_is_one_delegate_that_computes_the_files_integers(name, precision, tmp_path: Path) -> None:
    function, shapes = NETS[name]
    path = convert(function, shapes, tmp_path / "m.tflite", precision=precision)
    rng = np.random.default_rng(0)
    inputs = [random_input(rng, shape, tf.float32) for shape in shapes]
    read, operators, delegates, program = lowered(path, "fp32" if precision == "float" else "int8", tmp_path)
    assert [f"{operator.type}: {operator.reason}" for operator in operators if not operator.delegated] == []
    assert delegates == 1
    for wanted, found, step in zip(
        run_litert(path, inputs), run_method(program, inputs), output_steps(read), strict=True
    ):
        if step is None:
            assert decibels(wanted, found) > 100
        else:
            assert np.abs(wanted - found).max() <= 1.01 * step


@pytest.mark.parametrize("name", ["residual_se", "encoder_decoder"])
def test_images_are_turned_only_at_the_edges(name, tmp_path: Path) -> None:
    function, shapes = NETS[name]
    graph = read_program(convert(function, shapes, tmp_path / "m.tflite", precision="int8")).graph.graph
    permutes = [node for node in graph.nodes if node.target is torch.ops.aten.permute.default]
    image_out = name == "encoder_decoder"
    assert len(permutes) == 1 + image_out


def test_steps_of_a_loop_share_their_weights(tmp_path: Path) -> None:
    kernel = weights(4, 4)

    def loop(x):
        state = tf.zeros((1, 4))
        for step in tf.range(5):
            state = tf.tanh(tf.matmul(state, kernel) + x[:, step])
        return state

    path = convert(loop, ((1, 5, 4),), tmp_path / "m.tflite")
    read = read_program(path)
    kinds = Counter(str(node.target) for node in read.graph.graph.nodes)
    assert kinds["aten.tanh.default"] == 5
    assert sum(tensor.numel() == 16 for tensor in read.program.state_dict.values()) == 1


def test_equal_integers_on_two_grids_are_two_constants(tmp_path: Path) -> None:
    # both numbers become 127 on their own grids; XNNPACK keeps one scale for each constant
    def net(x):
        return tf.nn.relu(tf.abs(x) * 0.3) * 5.0

    path = convert(net, ((1, 12),), tmp_path / "m.tflite", precision="int8")
    read, _, _, program = lowered(path, "int8", tmp_path)
    inputs = [random_input(np.random.default_rng(0), (1, 12), tf.float32)]
    difference = np.abs(run_litert(path, inputs)[0] - run_method(program, inputs)[0])
    assert difference.max() <= 1.01 * output_steps(read)[0]


def test_channel_constants_are_right_when_their_other_sizes_are_one(tmp_path: Path) -> None:
    # [1, 1, 1, C] turned to [1, C, 1, 1] keeps strides that ExecuTorch 1.5.1 takes for channels-last memory
    constant = torch.randn(1, 1, 1, 4).permute(0, 3, 1, 2).contiguous()
    assert constant.dim_order() != (0, 1, 2, 3)
    graph = read_program(convert(lambda x: pooled(x) * weights(4), ((1, 8, 8, 4),), tmp_path / "m.tflite")).graph
    assert all(tensor.dim_order() == tuple(range(tensor.dim())) for tensor in graph.buffers())


def test_dynamic_range_weights_stay_integers_where_delegates_take_them(tmp_path: Path) -> None:
    kernel, depthwise, dense = weights(3, 3, 4, 32), weights(3, 3, 32, 1), weights(32, 40)

    def net(x):
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, 2, "SAME"))
        y = tf.nn.depthwise_conv2d(y, depthwise, [1, 1, 1, 1], "SAME")
        return tf.matmul(tf.reduce_mean(y, [1, 2]), dense)

    path = convert(net, ((1, 9, 9, 4),), tmp_path / "m.tflite", precision="dynamic")
    _, operators, _, program = lowered(path, "int8-dynamic", tmp_path)
    assert [f"{operator.type}: {operator.reason}" for operator in operators if not operator.delegated] == []
    dtypes = {operator.type: operator.weight_dtype for operator in operators if operator.weight_bytes > 512}
    assert dtypes["XNNConv2d"] == dtypes["XNNFullyConnected"] == "int8"
    inputs = [random_input(np.random.default_rng(0), (1, 9, 9, 4), tf.float32)]
    assert decibels(run_litert(path, inputs)[0], run_method(program, inputs)[0]) > 30
