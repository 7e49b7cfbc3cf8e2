"""TensorFlow's converter, driven: names and order, every precision, what is left in floats, files as sources."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema

from edgekit.errors import DataError, ModelError, UnsupportedError
from edgekit.formats.tflite.session import open_session
from edgekit.frameworks.keras.convert import Options, convert
from edgekit.frameworks.keras.convert_file import file_kind
from edgekit.frameworks.keras.layer_paths import LayerPaths
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.runner import run_source
from edgekit.frameworks.keras.serving import interface_of
from edgekit.program.tflite import flatbuffer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Interpreter is deprecated:UserWarning"),
]
LIBRARIES: dict[str, Any] = {"keras": keras, "tf_keras": tf_keras}


def source_of(model: Any) -> Source:
    return Source("keras" if isinstance(model, keras.Model) else "tf_keras", model, None)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 8, 3)).astype(np.float32)


def cnn(library: str = "tf_keras") -> Any:
    made = LIBRARIES[library]
    made.utils.set_random_seed(0)
    layers = made.layers
    inputs = made.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(40, 1, activation="relu", name="point")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return made.Model(inputs, layers.Dense(4, name="head")(x), name="cnn")


def saved(content: bytes, folder: Path) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


def outputs_of(content: bytes, inputs: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    with open_session(saved(content, folder), 1) as session:
        rows = [session.run([array[i : i + 1] for array in inputs]) for i in range(len(inputs[0]))]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def decibels(reference: np.ndarray, value: np.ndarray) -> float:
    error = float(np.square(value.astype(np.float64) - reference).sum())
    return 300.0 if error == 0 else 10 * float(np.log10(np.square(reference.astype(np.float64)).sum() / error))


def operators(content: bytes) -> list[str]:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def weights_of(content: bytes, kind: str) -> Any:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    operator = next(item for item in graph.operators if flatbuffer.operator_name(model, item) == kind)
    return graph.tensors[operator.inputs[1]]


@pytest.mark.parametrize("library", LIBRARIES)
def test_inputs_and_outputs_keep_names_and_order_when_there_are_several(library: str, tmp_path: Path) -> None:
    made = LIBRARIES[library]
    made.utils.set_random_seed(0)
    dense = made.layers.Dense
    zeta, alpha, ids = (
        made.Input((6,), name="zeta"),
        made.Input((4,), name="alpha"),
        made.Input((3,), name="ids", dtype="int32"),
    )
    looked_up = made.layers.Embedding(7, 8)(ids)
    hidden = made.layers.Add()([dense(8)(zeta), dense(8)(alpha), made.layers.GlobalAveragePooling1D()(looked_up)])
    model = made.Model(
        [zeta, alpha, ids], [dense(3, name="zz")(hidden), dense(2, name="bb")(hidden), dense(4, name="aa")(hidden)]
    )
    source = source_of(model)
    random = np.random.default_rng(0)
    inputs = [
        random.standard_normal((4, 6)).astype(np.float32),
        random.standard_normal((4, 4)).astype(np.float32),
        random.integers(0, 7, (4, 3)).astype(np.int32),
    ]
    for precision in ("fp32", "int8"):
        content = convert(source, precision, tmp_path, Options(calibration=inputs)).content
        path = saved(content, tmp_path)
        found = flatbuffer.read_model(path)
        assert [spec.name for spec in flatbuffer.model_inputs(found)] == ["zeta", "alpha", "ids"]
        assert [spec.dtype for spec in flatbuffer.model_inputs(found)] == ["float32", "float32", "int32"]
        assert [spec.name for spec in flatbuffer.model_outputs(found)] == ["zz", "bb", "aa"]
        expected, received = run_source(source, inputs), outputs_of(content, inputs, tmp_path)
        floor = 100 if precision == "fp32" else 20
        assert all(decibels(a, b) > floor for a, b in zip(expected, received, strict=True))


@pytest.mark.parametrize(
    ("precision", "floor_db"),
    [("fp32", 110), ("fp16", 60), ("int8-dynamic", 25), ("w8", 35), ("w4", 12), ("int16x8", 35)],
)
def test_file_agrees_with_the_model_when_converted(precision: Any, floor_db: float, tmp_path: Path) -> None:
    source = source_of(cnn("keras" if precision in ("fp32", "int16x8") else "tf_keras"))
    converted = convert(source, precision, tmp_path, Options(calibration=[images(16)]))
    test = images(8, seed=1)
    (expected,), (received,) = run_source(source, [test]), outputs_of(converted.content, [test], tmp_path)
    assert decibels(expected, received) > floor_db
    path = saved(converted.content, tmp_path)
    specs = (
        *flatbuffer.model_inputs(flatbuffer.read_model(path)),
        *flatbuffer.model_outputs(flatbuffer.read_model(path)),
    )
    assert {spec.dtype for spec in specs} == {"float32"}
    skipped = {layer.name: layer.reason for layer in converted.skipped}
    if precision == "int8-dynamic":
        assert set(skipped) == {"stem", "depthwise", "head"}  # TensorFlow leaves small weights alone
        assert skipped["head"] == "it has 160 weights, fewer than 1024"
    else:
        assert not skipped
    if precision == "w4":
        assert "DEPTHWISE_CONV_2D" in converted.notes[0] and "8 bits" in converted.notes[0]


_TWICE = """
import sys
from pathlib import Path
from frameworks.keras.test_keras_convert import cnn, source_of, images
from edgekit.frameworks.keras.convert import Options, convert
print(__import__("hashlib").sha256(convert(source_of(cnn("keras")), "int8", Path(sys.argv[1]),
      Options(calibration=[images(8)])).content).hexdigest())
"""


def test_bytes_are_the_same_when_converted_in_another_process_and_folder(tmp_path: Path) -> None:
    here = convert(source_of(cnn("keras")), "int8", tmp_path / "here", Options(calibration=[images(8)])).content
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _TWICE, str(tmp_path / "a longer name of a folder")],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tests), "PATH": "", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.split()[-1] == hashlib.sha256(here).hexdigest()
    assert str(tmp_path).encode() not in here


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_convert_and_agree_when_run_twice(library: str, kind: str, tmp_path: Path) -> None:
    made = LIBRARIES[library]
    made.utils.set_random_seed(0)
    inputs = made.Input((5, 4), name="sequence")
    model = made.Model(inputs, made.layers.Dense(3, name="head")(getattr(made.layers, kind)(6, name="memory")(inputs)))
    source = source_of(model)
    content = convert(source, "fp32", tmp_path).content
    test = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    (expected,), (received,) = run_source(source, [test]), outputs_of(content, [test], tmp_path)
    assert decibels(expected, received) > 100
    assert "READ_VARIABLE" not in operators(content)
    if (library, kind) == ("tf_keras", "LSTM"):
        assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in operators(content)


def test_operation_is_named_with_its_layer_when_tflite_has_no_kernel(tmp_path: Path) -> None:
    layers = tf_keras.layers
    odd = layers.Lambda(lambda x: tf.math.digamma(x) + tf.math.erfinv(x), name="odd")
    model = tf_keras.Sequential([layers.Input((4,)), layers.Dense(4), odd])
    with pytest.raises(UnsupportedError, match=r"Digamma \(in '.*odd") as refused:
        convert(source_of(model), "fp32", tmp_path)
    assert "Erfinv" in refused.value.what


def test_operators_without_integer_kernels_are_named_when_int8(tmp_path: Path) -> None:
    layers = tf_keras.layers
    wave = layers.Lambda(tf.sin, name="wave")
    model = tf_keras.Sequential([layers.Input((8,)), layers.Dense(8, name="first"), wave, layers.Dense(3, name="last")])
    data = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    converted = convert(source_of(model), "int8", tmp_path, Options(calibration=[data]))
    assert converted.notes == ("left in floating point, since TFLite has no int8 kernels for them: SIN (in 'wave')",)
    assert not converted.skipped


def test_int8_needs_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="int8 fixes the scales of activations from real samples"):
        convert(source_of(cnn()), "int8", tmp_path)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "int8-dynamic", "w8"])
def test_picked_layer_stays_float_when_the_others_are_quantized(precision: Any, tmp_path: Path) -> None:
    options = Options(calibration=[images(8)], picked={"point": "poi*"})
    converted = convert(source_of(cnn("keras")), precision, tmp_path, options)
    (left,) = [layer for layer in converted.skipped if layer.name == "point"]
    assert left.reason == "left alone by the rule 'poi*'"
    assert {layer.name for layer in converted.skipped} == {"point"}
    assert not any("point" in note for note in converted.notes)


@pytest.mark.parametrize("precision", ["int8", "w8"])
def test_weights_have_one_scale_when_not_per_channel(precision: Any, tmp_path: Path) -> None:
    scales = {}
    for per_channel in (True, False):
        options = Options(calibration=[images(8)], per_channel=per_channel)
        content = convert(source_of(cnn()), precision, tmp_path, options).content
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        tensors = [tensor for tensor in model.subgraphs[0].tensors if flatbuffer.dtype_of(tensor) == "int8"]
        wide = [tensor for tensor in tensors if flatbuffer.shape_of(tensor) == (32, 3, 3, 3)]
        scales[per_channel] = len(wide[0].quantization.scale)
    assert scales == {True: 32, False: 1}


def test_file_takes_any_batch_when_asked_to(tmp_path: Path) -> None:
    source = source_of(cnn("keras"))
    content = convert(source, "fp32", tmp_path, Options(dynamic_batch=True)).content
    test = images(3)
    with open_session(saved(content, tmp_path), 1) as session:
        assert session.inputs[0].shape == (None, 8, 8, 3)
        np.testing.assert_allclose(session.run([test])[0], run_source(source, [test])[0], atol=1e-5)


def test_names_that_a_graph_cannot_hold_are_spelled_otherwise() -> None:
    inputs = tf_keras.Input((3,), name="1st")
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="head")(inputs))
    model.output_names = ["scores/final"]
    interface = interface_of(source_of(model))
    assert [spec.name for spec in interface.inputs] == ["tensor_1st"]
    assert interface.outputs == ("scores_final",)


def test_model_is_refused_when_it_cannot_be_recorded(tmp_path: Path) -> None:
    def branch(x: Any) -> Any:
        return x if float(x[0, 0]) > 0 else -x

    class Branching(tf_keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return branch(x) if x.shape[0] is not None else x

    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), Branching(name="branching")])
    with pytest.raises(ModelError, match="cannot be recorded for conversion"):
        convert(source_of(model), "fp32", tmp_path)


# Files as sources.


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float")
    return saved(convert(source_of(cnn()), "fp32", folder).content, folder)


@pytest.mark.parametrize(
    ("precision", "floor_db"),
    [("fp32", 300), ("fp16", 60), ("int8", 25), ("int16x8", 35), ("w8", 35), ("int8-dynamic", 30)],
)
def test_float_file_becomes_every_precision(precision: Any, floor_db: float, float_file: Path, tmp_path: Path) -> None:
    source = Source("tflite", None, float_file)
    converted = convert(source, precision, tmp_path, Options(calibration=[images(16)]))
    test = images(8, seed=1)
    (expected,), (received,) = run_source(source, [test]), outputs_of(converted.content, [test], tmp_path)
    assert decibels(expected, received) >= floor_db
    assert (converted.content == float_file.read_bytes()) is (precision == "fp32")
    expected_kind = {"fp32": "float", "fp16": "half", "w8": "weights", "int8-dynamic": "dynamic"}
    assert file_kind(converted.content) == expected_kind.get(precision, precision)
    if precision == "int8":
        specs = flatbuffer.model_inputs(flatbuffer.read_model(saved(converted.content, tmp_path)))
        assert specs[0].dtype == "float32"


@pytest.mark.parametrize("kind", ["int8", "w8", "int8-dynamic"])
def test_quantized_file_is_published_as_it_is_or_refused_with_the_way_out(kind: Any, tmp_path: Path) -> None:
    content = convert(source_of(cnn()), kind, tmp_path, Options(calibration=[images(8)])).content
    source = Source("tflite", None, saved(content, tmp_path))
    assert convert(source, kind, tmp_path).content == content
    with pytest.raises(UnsupportedError, match=rf"this file is {kind} already.*--precision {kind}"):
        convert(source, "int16x8", tmp_path)
    if kind != "w8":
        with pytest.raises(UnsupportedError, match=f"--precision {kind}"):
            convert(source, "fp32", tmp_path)
    else:
        taken = convert(source, "fp32", tmp_path)
        assert taken.content == content and "8-bit weights" in taken.notes[0]


def test_operator_of_a_file_stays_float_when_a_rule_picks_it(float_file: Path, tmp_path: Path) -> None:
    source = Source("tflite", None, float_file)
    model = flatbuffer.read_model(float_file)
    name = flatbuffer.text(model.subgraphs[0].tensors[model.subgraphs[0].operators[0].outputs[0]].name)
    converted = convert(source, "int8", tmp_path, Options(calibration=[images(8)], picked={name: "stem*"}))
    assert [(layer.name, layer.reason) for layer in converted.skipped] == [(name, "left alone by the rule 'stem*'")]
    assert operators(converted.content)[0] == "CONV_2D"


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("stem", "stem"),
        ("net_1.stem_1", "stem"),
        ("net.block_2.conv_1", "block_2.conv"),
        ("quant_stem", "stem"),
        ("stem_2.while.body", "stem_2"),
        ("elsewhere.x", "elsewhere.x"),
    ],
)
def test_layer_is_found_when_the_converter_spells_it_otherwise(path: str, layer: str) -> None:
    assert LayerPaths(["stem", "stem_2", "block_2", "block_2.conv"]).find(path) == layer
