"""Sequences, free batches, weight-only and old files, and files that are refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tf_keras
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
    from reader_models import convert, decibels, random_input, read_program, run_litert, run_read, tf

    from edgekit.errors import ArtifactError, UnsupportedError
    from edgekit.program.tflite import flatbuffer
    from edgekit.program.tflite.operators import OPERATORS, control
    from edgekit.program.tflite.operators.versions import newest
    from edgekit.program.tflite.quantizer import quantize_float_weights

pytestmark = pytest.mark.filterwarnings("ignore")


def _weights(*shape: int):
    return tf.constant(np.random.default_rng(3).normal(size=shape).astype(np.float32) * 0.4)


def _keras(layer, shape: tuple[int, ...], path: Path, precision: str) -> Path:
    tf_keras.utils.set_random_seed(1)
    model = tf_keras.Sequential([tf_keras.layers.Input(shape), layer])
    return convert(lambda x: model(x), ((1, *shape),), path, precision=precision, trackable=model)


RECURRENT = {
    "lstm": lambda: tf_keras.layers.LSTM(5, return_sequences=True),
    "two_directions": lambda: tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(4)),
    "gru_loop": lambda: tf_keras.layers.GRU(5),
    "gru_loop_of_sequences": lambda: tf_keras.layers.GRU(5, return_sequences=True, reset_after=False),
    "rnn": lambda: tf_keras.layers.SimpleRNN(5),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_sequences_are_unrolled_to_what_litert_computes(name, tmp_path: Path) -> None:
    path = _keras(RECURRENT[name](), (5, 3), tmp_path / "m.tflite", "float")
    inputs = [random_input(np.random.default_rng(0), (1, 5, 3), tf.float32)]
    assert decibels(run_litert(path, inputs)[0], run_read(read_program(path), inputs)[0]) > 100


def test_integer_lstm_is_within_a_few_steps(tmp_path: Path) -> None:
    path = _keras(tf_keras.layers.LSTM(8, return_sequences=True), (12, 3), tmp_path / "m.tflite", "int8")
    inputs = [random_input(np.random.default_rng(0), (1, 12, 3), tf.float32)]
    expected, actual = run_litert(path, inputs)[0], run_read(read_program(path), inputs)[0]
    assert np.abs(expected - actual).max() <= 3.01 / 128  # hidden states are between -1 and 1


def test_integer_lstm_is_the_models_when_the_file_gives_its_output_another_scale(tmp_path: Path) -> None:
    # the converter gives both directions the scale of their concatenation, and leaves their states' scales alone
    layer = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(4))
    paths = [_keras(layer, (6, 3), tmp_path / f"{precision}.tflite", precision) for precision in ("float", "int8")]
    inputs = [random_input(np.random.default_rng(0), (1, 6, 3), tf.float32)]
    read = read_program(paths[1])
    model = run_litert(paths[0], inputs)[0]
    assert decibels(model, run_read(read, inputs)[0]) > decibels(model, run_litert(paths[1], inputs)[0]) + 6
    assert any("another scale than its state" in note for note in read.notes)


def test_loop_is_refused_when_its_length_depends_on_the_input(tmp_path: Path) -> None:
    def until_large(x):
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: [y * 2.0], [tf.abs(x) + 1.0])

    path = convert(until_large, ((1, 4),), tmp_path / "m.tflite")
    with pytest.raises(UnsupportedError, match=r"WHILE.*depends on the model's input"):
        read_program(path)


def test_loop_is_refused_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_STEPS", 4)
    path = _keras(tf_keras.layers.GRU(2), (5, 1), tmp_path / "m.tflite", "float")
    with pytest.raises(UnsupportedError, match="more than 4 times"):
        read_program(path)


def test_state_between_calls_is_refused(tmp_path: Path) -> None:
    class Counter(tf.Module):
        def __init__(self) -> None:
            self.total = tf.Variable(tf.zeros((1, 4)))

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
        def __call__(self, x):
            return self.total.assign_add(x)

    counter = Counter()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([counter.__call__.get_concrete_function()], counter)
    converter.experimental_enable_resource_variables = True
    path = tmp_path / "m.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(UnsupportedError, match="state between calls"):
        read_program(path)


def _convnet(x):
    y = tf.nn.relu(tf.nn.conv2d(x, _weights(3, 3, 3, 4), 2, "SAME"))
    y = tf.reshape(y, [tf.shape(y)[0], 16, 4])
    y = tf.concat([tf.broadcast_to(_weights(1, 1, 4), [tf.shape(y)[0], 1, 4]), y], 1)
    scores = tf.nn.softmax(tf.matmul(y, y, transpose_b=True))
    return tf.reshape(tf.matmul(scores, y), [-1, 68]) @ _weights(68, 5)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_any_batch_is_taken_when_the_batch_is_free(precision, tmp_path: Path) -> None:
    path = convert(_convnet, ((None, 8, 8, 3),), tmp_path / "m.tflite", precision=precision)
    read = read_program(path, dynamic_batch=True)
    inputs = [random_input(np.random.default_rng(0), (3, 8, 8, 3), tf.float32)]
    expected, actual = run_litert(path, inputs)[0], run_read(read, inputs)[0]
    assert decibels(expected, actual) > (100 if precision == "float" else 30)
    assert read.inputs[0].shape == (None, 8, 8, 3)


def test_free_batch_is_refused_when_samples_mix(tmp_path: Path) -> None:
    path = convert(lambda x: x - tf.reduce_mean(x, 0, keepdims=True), ((None, 4),), tmp_path / "m.tflite")
    with pytest.raises(UnsupportedError, match="free batch"):
        read_program(path, dynamic_batch=True)


@pytest.mark.parametrize(("precision", "limit"), [("w8", 127), ("w4", 7)])
def test_weight_only_files_keep_their_integers_in_front_of_the_layer(precision, limit, tmp_path: Path) -> None:
    kernel, dense = _weights(3, 3, 3, 32), _weights(32, 40)

    def net(x):
        return tf.matmul(tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), [1, 2]), dense)

    plain = convert(net, ((1, 8, 8, 3),), tmp_path / "f.tflite")
    path = tmp_path / "m.tflite"
    path.write_bytes(quantize_float_weights(plain.read_bytes(), precision).content)
    read = read_program(path)
    folded = [node for node in read.graph.graph.nodes if "dequantize_per_channel" in str(node.target)]
    targets = sorted(str(user.target) for node in folded for user in node.users)
    assert targets == ["aten.conv2d.default", "aten.linear.default"]
    integers = [tensor for tensor in read.graph.buffers() if tensor.dtype is torch.int8]
    assert len(integers) == 2
    assert all(int(tensor.abs().max()) <= limit for tensor in integers)
    inputs = [random_input(np.random.default_rng(0), (1, 8, 8, 3), tf.float32)]
    assert decibels(run_litert(path, inputs)[0], run_read(read, inputs)[0]) > 100


def _changed(path: Path, change, name: str = "changed.tflite") -> Path:
    model = flatbuffer.read_model(path)
    change(model)
    changed = path.with_name(name)
    flatbuffer.write_model(model, changed)
    return changed


def test_weights_with_a_zero_point_become_symmetric_and_are_noted(tmp_path: Path) -> None:
    path = convert(lambda x: tf.matmul(x, _weights(12, 6)), ((1, 12),), tmp_path / "m.tflite", precision="int8")

    def shift(model) -> None:
        graph = model.subgraphs[0]
        operator = next(op for op in graph.operators if len(indices := list(op.inputs)) == 3 and indices[1] >= 0)
        tensor = graph.tensors[operator.inputs[1]]
        values = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8).astype(np.int32)
        tensor.quantization.scale, tensor.quantization.zeroPoint = [0.02], [-40]
        tensor.quantization.quantizedDimension = 0
        model.buffers[tensor.buffer].data = np.clip(values, -128, 127).astype(np.int8).view(np.uint8)

    read = read_program(_changed(path, shift))
    assert len(read.notes) == 1
    assert "-40" in read.notes[0]
    weight = next(node for node in read.graph.graph.nodes if "dequantize_per_channel" in str(node.target))
    points = read.graph.get_buffer(weight.args[2].target)
    assert not points.any()


def test_known_versions_are_those_that_the_runtime_takes() -> None:
    taken = {}
    for name in OPERATORS:
        taken[name] = max(version for version in range(1, newest(name) + 4) if _is_taken(name, version))
    assert taken == {name: newest(name) for name in OPERATORS}


def _is_taken(name: str, version: int) -> bool:
    code = getattr(schema.BuiltinOperator, name)
    model, graph, operator, declared = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    declared.builtinCode, declared.deprecatedBuiltinCode, declared.version = code, min(code, 127), version
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [], []
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [], [], [], [operator]
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [declared], [graph]
    builder = flatbuffer.flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    try:
        Interpreter(model_content=bytes(builder.Output()))
    except ValueError as error:
        return "Didn't find op" not in str(error)
    except RuntimeError:
        return True
    return True


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def net(x):
        y = tf.nn.relu(tf.nn.conv2d(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), _weights(3, 3, 2, 4), 2, "VALID"))
        y = tf.concat([y[:, ::2, 1:], tf.nn.max_pool2d(y, 2, 2, "SAME")[:, :, :1]], 2)
        return tf.split(tf.reshape(tf.tile(y, [1, 1, 2, 1]), [1, -1]), 2, 1)

    path = tmp_path_factory.mktemp("small") / "m.tflite"
    return convert(net, ((1, 8, 8, 2),), path, precision="int8")


def test_unknown_operator_is_named_with_its_place(small: Path) -> None:
    def unknown(model) -> None:
        code = next(code for code in model.operatorCodes if code.builtinCode == schema.BuiltinOperator.CONV_2D)
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SVDF

    with pytest.raises(UnsupportedError, match=r"SVDF \(at '"):
        read_program(_changed(small, unknown))


def test_newer_version_is_refused_by_name(small: Path) -> None:
    def newer(model) -> None:
        for code in model.operatorCodes:
            code.version = 99 if code.builtinCode == schema.BuiltinOperator.CONV_2D else code.version

    with pytest.raises(UnsupportedError, match="CONV_2D of version 99, known up to 8"):
        read_program(_changed(small, newer))


def test_operator_before_its_operand_is_called_damage(small: Path) -> None:
    def backwards(model) -> None:
        model.subgraphs[0].operators.reverse()

    with pytest.raises(ArtifactError, match="damaged at operator"):
        read_program(_changed(small, backwards))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(small: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(8, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / "damaged.tflite"
    path.write_bytes(bytes(content[:length]))
    try:
        read_program(path)
    except (ArtifactError, UnsupportedError) as error:
        assert str(error)


def _large(path: Path) -> Path:
    """A convolution with enough weights that ai-edge-quantizer puts them behind the flatbuffer."""
    return _keras(tf_keras.layers.Conv2D(256, 3), (6, 6, 160), path, "float")


def test_weights_behind_the_flatbuffer_are_read_and_computed_with(tmp_path: Path) -> None:
    large = tmp_path / "w8.tflite"
    large.write_bytes(quantize_float_weights(_large(tmp_path / "m.tflite").read_bytes(), "w8").content)
    raw = schema.ModelT.InitFromPackedBuf(large.read_bytes(), 0)
    assert any(buffer.offset > 1 for buffer in raw.buffers)  # what this test is about
    held = [buffer for buffer in flatbuffer.read_model(large).buffers if buffer.data is not None]
    assert max(len(buffer.data) for buffer in held) == 256 * 3 * 3 * 160
    inputs = [random_input(np.random.default_rng(0), (1, 6, 6, 160), tf.float32)]
    assert decibels(run_litert(large, inputs)[0], run_read(read_program(large), inputs)[0]) > 100


def test_weights_behind_the_flatbuffer_are_still_there_when_the_model_is_written_again(tmp_path: Path) -> None:
    large, again = tmp_path / "w8.tflite", tmp_path / "again.tflite"
    large.write_bytes(quantize_float_weights(_large(tmp_path / "m.tflite").read_bytes(), "w8").content)
    flatbuffer.write_model(flatbuffer.read_model(large), again)
    inputs = [random_input(np.random.default_rng(0), (1, 6, 6, 160), tf.float32)]
    np.testing.assert_array_equal(run_litert(again, inputs)[0], run_litert(large, inputs)[0])


def test_a_file_that_was_cut_off_behind_the_flatbuffer_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "w8.tflite"
    large.write_bytes(quantize_float_weights(_large(tmp_path / "m.tflite").read_bytes(), "w8").content[:-4096])
    with pytest.raises(ArtifactError, match=r"truncated or damaged.*outside of the file"):
        flatbuffer.read_model(large)
