"""Loading: each source works, and each way in which a source can be wrong has its own message."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import h5py
import keras
import keras_models as models
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgekit.errors import DataError, ModelError, ToolError, UntrustedCodeError
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.frameworks.keras.load import load_source
from edgekit.frameworks.keras.runner import input_specs, output_specs, run_source
from edgekit.frameworks.keras.weights_file import read_weights, weight_arrays, write_weights
from edgekit.recipe.schema import ModelSection
from edgekit.records import Quantization, TensorSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

BOTH = pytest.mark.parametrize("library", models.LIBRARIES, ids=models.title)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32)
DATA = Path(os.environ.get("EDGEKIT_DATA_DIR", Path(__file__).resolve().parents[4] / "shared" / "data"))


def section(source: object, **more: Any) -> ModelSection:
    return ModelSection(source=str(source), **more)


def development_data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"development data are not here: {path} (set EDGEKIT_DATA_DIR)")
    return path


@BOTH
@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5"])
def test_file_runs_as_it_was_saved_whichever_library_wrote_it(library: Any, name: str, tmp_path: Path) -> None:
    model = models.two_headed(library)
    model.save(tmp_path / "m.h5" if name == "m.hdf5" else tmp_path / name)
    if name == "m.hdf5":
        (tmp_path / "m.h5").rename(tmp_path / name)
    source = load_source(section(tmp_path / name))
    assert (source.library, source.notes) == (library.__name__, ())
    assert [spec.name for spec in input_specs(source)] == ["image"]
    assert [(spec.name, spec.shape) for spec in output_specs(source)] == [("aux", (1, 4)), ("logits", (1, 2))]
    for received, expected in zip(run_source(source, [IMAGES], batch=2), models.outputs_of(model, IMAGES), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_hdf5_loads_when_it_is_called_keras(tmp_path: Path) -> None:
    models.dense(tf_keras).save(tmp_path / "m.h5")
    (tmp_path / "m.h5").rename(tmp_path / "old.keras")
    assert load_source(section(tmp_path / "old.keras")).library == "tf_keras"


def test_the_other_library_is_tried_and_named_when_the_first_refuses(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    models.two_headed(tf_keras).save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "3.0.0"
    source = load_source(section(path))
    assert source.library == "tf_keras"
    assert source.notes[0].startswith("m.h5 was loaded by tf_keras; refused by keras 3.")


def test_saved_model_of_tf_keras_is_a_model_and_of_keras_3_a_signature(tmp_path: Path) -> None:
    for library, expected in ((tf_keras, "tf_keras"), (keras, "saved_model")):
        model = models.two_headed(library)
        folder = tmp_path / expected
        if library is keras:
            model.export(folder, verbose=False)
        else:
            model.save(folder)
        source = load_source(section(folder))
        assert source.library == expected
        assert [spec.name for spec in output_specs(source)] == ["aux", "logits"]
        for received, wanted in zip(run_source(source, [IMAGES]), models.outputs_of(model, IMAGES), strict=True):
            np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-6)


def test_signature_is_used_and_the_reason_told_when_tf_keras_refuses_a_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("a layer of another age")

    models.dense(tf_keras).save(tmp_path / "m")
    monkeypatch.setattr(tf_keras.models, "load_model", refuse)
    source = load_source(section(tmp_path / "m"))
    assert source.library == "saved_model"
    assert source.notes == ("m: its signature is used, because tf_keras refused the model: a layer of another age",)
    assert run_source(source, [np.ones((2, 4), np.float32)])[0].shape == (2, 2)


def test_callable_is_called_with_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    models.offer(monkeypatch, "my_models", build=lambda width: models.dense(tf_keras, width), text=str)
    source = load_source(section("my_models:build", args={"width": 7}))
    assert (source.library, input_specs(source)[0].shape) == ("tf_keras", (1, 7))
    with pytest.raises(ModelError, match=r"cannot be called with model.args \{'depth': 1\}"):
        load_source(section("my_models:build", args={"depth": 1}))
    with pytest.raises(ModelError, match=r"to return a keras.Model or a tf_keras.Model.*received str"):
        load_source(section("my_models:text"))


@BOTH
def test_unnamed_layers_are_called_the_same_whatever_was_built_before(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> Any:
        return library.Sequential([library.Input((3,)), library.layers.Dense(4), library.layers.Dense(2)])

    models.offer(monkeypatch, "my_models", build=build)
    first, second = (load_source(section("my_models:build")).model for _ in range(2))
    assert list(weight_arrays(first)) == list(weight_arrays(second)) == ["dense/0", "dense/1", "dense_1/0", "dense_1/1"]


@BOTH
def test_subclassed_model_runs_when_the_callable_gives_an_example(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Halves(library.Model):
        def __init__(self) -> None:
            super().__init__(name="halves")
            self.part = library.layers.Dense(2, name="part")

        def call(self, x: Any, scale: Any) -> dict[str, Any]:
            return {"y": self.part(x) * scale}

    class OneInput(Halves):
        def call(self, x: Any) -> dict[str, Any]:
            return {"y": self.part(x)}

    example = np.ones((1, 3), np.float32)
    models.offer(monkeypatch, "my_models", one=lambda: (OneInput(), example), silent=OneInput)
    source = load_source(section("my_models:one"))
    assert [spec.name for spec in output_specs(source)] == ["y"]
    assert run_source(source, [np.ones((5, 3), np.float32)])[0].shape == (5, 2)
    with pytest.raises(ModelError, match=r"'halves' \(OneInput\) does not say what it takes. Return \(model, example"):
        load_source(section("my_models:silent"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.at_all:build", r"model.source: the module 'nowhere.at_all'.*cannot be imported"),
        ("my_models:desne", r"'desne'.*does not exist. Did you mean 'dense'"),
        ("missing.keras", r"there is no file 'missing.keras'. Expected package.module:callable, a .keras"),
    ],
)
def test_load_names_the_place_when_the_source_is_wrong(
    source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.offer(monkeypatch, "my_models", dense=lambda: models.dense(keras))
    with pytest.raises(ModelError, match=message):
        load_source(section(source))


@BOTH
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_layer_is_not_run_without_trust(
    library: Any, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mark = tmp_path / f"m{suffix}", tmp_path / "executed"
    monkeypatch.setenv(models.MARK, str(mark))
    models.lambda_model(library).save(path)
    mark.unlink(missing_ok=True)
    with pytest.raises(UntrustedCodeError, match=r"layer 'twice' is a Lambda layer.*--trust"):
        load_source(section(path))
    assert not mark.exists()
    assert run_source(load_source(section(path, trust=True)), [np.ones((1, 3), np.float32)])[0].tolist() == [[2, 2, 2]]
    assert mark.exists()


def test_lambda_in_a_saved_model_is_run_as_its_graph_without_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, folder = tmp_path / "executed", tmp_path / "folder"
    monkeypatch.setenv(models.MARK, str(mark))
    models.lambda_model(tf_keras).save(folder)
    mark.unlink()
    source = load_source(section(folder))
    assert (source.library, mark.exists()) == ("saved_model", False)
    assert "Lambda layer 'twice'" in source.notes[0]


def test_module_of_a_custom_class_is_imported_with_trust_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tf_keras would import the module by itself, and with it run any code of that module."""
    code = "import pathlib\npathlib.Path({!r}).touch()\nimport tf_keras\nclass Dense(tf_keras.layers.Dense): pass\n"
    mark = tmp_path / "executed"
    (tmp_path / "their_layers.py").write_text(code.format(str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "m.keras"
    models.dense(tf_keras).save(path)

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1] |= {"module": "their_layers", "registered_name": "Dense"}

    models.rewrite_archive(path, config=change)
    with pytest.raises(UntrustedCodeError, match=r"layer 'head' needs 'Dense' of the module 'their_layers'.*--trust"):
        load_source(section(path))
    assert not mark.exists()
    assert type(load_source(section(path, trust=True)).model.layers[1]).__module__ == "their_layers"


@pytest.mark.parametrize(("module", "function"), [("keras.utils", "get_file"), ("builtins", "eval"), ("os", "system")])
def test_function_that_is_no_activation_is_refused(module: str, function: str, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    models.dense(tf_keras).save(path)

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["activation"] = {
            "module": module, "class_name": "function", "config": function, "registered_name": function,
        }  # fmt: skip

    models.rewrite_archive(path, config=change)
    with pytest.raises((UntrustedCodeError, ModelError), match=rf"layer 'head'.*{function}"):
        load_source(section(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_operation_on_files_needs_trust(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    inputs = tf_keras.Input((3,), name="x")
    tf_keras.Model(inputs, tf.math.abs(inputs, name="reads")).save(path)

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["function"] = "io.read_file"

    if suffix == ".keras":
        models.rewrite_archive(path, config=change)
    else:
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(
        UntrustedCodeError, match=r"layer 'tf\.math\.abs.*' \(TFOpLambda\) calls a function.*files.*--trust"
    ):
        load_source(section(path))


@BOTH
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_layer_is_named_when_it_is_not_registered(library: Any, suffix: str, tmp_path: Path) -> None:
    class Swirl(library.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    Swirl.__module__ = "lost_module"
    path = tmp_path / f"m{suffix}"
    library.Sequential([library.Input((3,)), Swirl(name="twist")]).save(path)
    with pytest.raises(ModelError, match=r"layer 'twist'.*'Swirl'.*register_keras_serializable.*module:callable"):
        load_source(section(path))


def test_newer_major_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    models.dense(keras).save(path)
    models.rewrite_archive(path, metadata=lambda content: content.update(keras_version="4.1.0"))
    with pytest.raises(ModelError, match=r"written by Keras 4\.1\.0, newer than the 3\..*Upgrade Keras"):
        load_source(section(path))


def test_newer_minor_version_is_named_when_its_layers_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    models.dense(keras).save(path)

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["sparkle"] = 1

    models.rewrite_archive(path, config=change, metadata=lambda content: content.update(keras_version="3.99.0"))
    with pytest.raises(ModelError, match=r"cannot be loaded.*written by Keras 3\.99\.0, newer than"):
        load_source(section(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98])
def test_truncated_file_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    models.dense(keras).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"truncated"):
        load_source(section(path))


def test_other_files_and_folders_are_refused_by_content(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_text("a text")
    with pytest.raises(ModelError, match="no Keras file: expected a zip archive"):
        load_source(section(tmp_path / "m.keras"))
    (tmp_path / "m.bin").write_bytes(b"1")
    with pytest.raises(ModelError, match=r"m\.bin.*Expected package.module:callable"):
        load_source(section(tmp_path / "m.bin"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match=r"holds no saved_model\.pb"):
        load_source(section(tmp_path / "folder"))
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"\x99\x88 nothing")
    with pytest.raises(ModelError, match=r"truncated or no SavedModel"):
        load_source(section(tmp_path / "folder"))


def test_graph_that_writes_files_needs_trust(tmp_path: Path) -> None:
    class Writes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            tf.io.write_file(str(tmp_path / "written"), "1")
            return {"y": x}

    module = Writes()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.__call__})
    with pytest.raises(UntrustedCodeError, match=r"the operation WriteFile.*--trust"):
        load_source(section(tmp_path / "m"))
    assert load_source(section(tmp_path / "m", trust=True)).library == "saved_model"


@BOTH
def test_stateful_layer_is_named(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> Any:
        inputs = library.Input(batch_shape=(1, 4, 2)) if library is keras else library.Input((4, 2), batch_size=1)
        inner = library.Sequential([library.layers.LSTM(3, stateful=True, name="memory")], name="inside")
        return library.Model(inputs, inner(inputs))

    models.offer(monkeypatch, "my_models", build=build)
    with pytest.raises(ModelError, match=r"layer 'inside\.memory' \(LSTM\) keeps its state between calls"):
        load_source(section("my_models:build"))


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "string"}, "'words' takes strings"),
        ({"ragged": True}, "'words' is ragged"),
        ({"sparse": True}, "'words' is sparse"),
    ],
)
def test_inputs_that_are_no_dense_numbers_are_named(
    library: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> Any:
        inputs = library.Input((None,) if "ragged" in options else (3,), name="words", **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return library.Model(inputs, library.layers.Activation("linear")(inputs))

    models.offer(monkeypatch, "my_models", build=build)
    with pytest.raises(ModelError, match=message):
        load_source(section("my_models:build"))


def test_fixed_batch_is_run_one_by_one_and_a_larger_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(size: int) -> Any:
        inputs = keras.Input(batch_shape=(size, 3))
        return keras.Model(inputs, keras.layers.Dense(2)(inputs))

    models.offer(monkeypatch, "my_models", build=build)
    source = load_source(section("my_models:build", args={"size": 1}))
    assert run_source(source, [np.ones((4, 3), np.float32)])[0].shape == (4, 2)
    with pytest.raises(ModelError, match=r"batch in axis 0 that is free or 1"):
        input_specs(load_source(section("my_models:build", args={"size": 4})))


@BOTH
@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.npz", "w.keras"])
def test_weights_are_loaded_whichever_way_they_were_saved(
    library: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = models.dense(library)
    if name.endswith(".npz"):
        write_weights(trained, tmp_path / name)
    elif name == "w.weights.h5":
        trained.save_weights(tmp_path / name)
    else:
        trained.save(tmp_path / name)
    models.offer(monkeypatch, "my_models", build=lambda: library.Sequential(
        [library.Input((4,), name="x"), library.layers.Dense(2, name="head")], name="tiny"))  # fmt: skip
    source = load_source(section("my_models:build", weights=str(tmp_path / name)))
    np.testing.assert_array_equal(source.model.get_weights()[0], trained.get_weights()[0])


def test_weights_alone_need_a_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.weights.h5"
    trained = models.dense(keras)
    trained.save_weights(path)
    with pytest.raises(ModelError, match=r"holds weights only\. Give model.builder"):
        load_source(section(path))
    models.offer(monkeypatch, "my_models", build=lambda width=4: models.dense(keras, width))
    loaded = load_source(section(path, builder="my_models:build")).model
    np.testing.assert_array_equal(loaded.get_weights()[0], trained.get_weights()[0])
    with pytest.raises(ModelError, match=r"do not fit the model"):
        load_source(section(path, builder="my_models:build", args={"width": 5}))


def test_npz_names_weights_that_do_not_fit(tmp_path: Path) -> None:
    write_weights(models.dense(keras), tmp_path / "w.npz")
    with pytest.raises(ModelError, match=r"head/0 has shape \[4, 2\], the model needs \[5, 2\]"):
        read_weights(models.dense(keras, 5), tmp_path / "w.npz")
    with pytest.raises(ModelError, match=r"missing from the file: inner\.down/0.*unknown to the model|missing"):
        read_weights(models.two_headed(keras), tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"truncated or no \.npz"):
        read_weights(models.dense(keras), tmp_path / "w.npz")


def test_npz_is_the_same_bytes_and_fits_both_libraries(tmp_path: Path) -> None:
    source, target = models.two_headed(keras), models.two_headed(tf_keras)
    for variable in target.weights:
        variable.assign(tf.zeros_like(variable))
    write_weights(source, tmp_path / "a.npz")
    write_weights(source, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read_weights(target, tmp_path / "a.npz")
    for one, other in zip(models.outputs_of(source, IMAGES), models.outputs_of(target, IMAGES), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["kws/ds_cnn_float32.tflite", "tflite_fixtures/trained_lstm.tflite"])
def test_tflite_of_others_runs_the_same_every_time(name: str) -> None:
    source = load_source(section(development_data(name)))
    spec = input_specs(source)[0]
    sample = np.random.default_rng(0).standard_normal([size or 1 for size in spec.shape]).astype(np.float32)
    twice = run_source(source, [np.concatenate([sample, sample])])[0]
    assert twice.dtype == np.float32
    np.testing.assert_array_equal(twice[0], twice[1])


def test_quantized_tflite_takes_real_numbers_and_its_own_integers() -> None:
    source = load_source(section(development_data("kws/ds_cnn_int8.tflite")))
    spec = input_specs(source)[0]
    assert (spec.dtype, spec.quantization is not None) == ("float32", True)
    assert spec.quantization is not None
    integers = np.random.default_rng(0).integers(-128, 127, (2, 49, 10, 1)).astype(np.int8)
    real = (integers.astype(np.float32) - spec.quantization.zero_point[0]) * np.float32(spec.quantization.scale[0])
    fed = as_arrays([integers], None, [spec])
    np.testing.assert_array_equal(fed[0], real)
    assert run_source(source, fed)[0].dtype == np.float32


def test_saved_model_of_others_is_as_accurate_as_published() -> None:
    source = load_source(section(development_data("kws/ds_cnn_saved_model")))
    data = np.load(development_data("kws/speech_commands_dev500.npz"), allow_pickle=False)
    features = (data["mfcc_int8"].astype(np.float32) - 83) * np.float32(0.5847029)
    scores = run_source(source, [features.reshape(-1, 49, 10, 1)], batch=100)[0]
    assert (scores.argmax(1) == data["label"]).mean() == pytest.approx(0.904, abs=0.003)


def test_tflite_that_the_runtime_refuses_is_named_with_its_reason() -> None:
    source = load_source(section(development_data("tflite_fixtures/person_detect.tflite")))
    with pytest.raises(ToolError, match=r"LiteRT cannot load person_detect.tflite: .*Convert the model anew"):
        run_source(source, [np.zeros((1, 96, 96, 1), np.float32)])


def test_damaged_tflite_is_refused_before_the_runtime_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(models.dense(tf_keras)).convert()[:300])
    with pytest.raises(ModelError, match=r"model.source: .*m\.tflite.* is truncated or damaged"):
        load_source(section(path))


SPEC = TensorSpec(name="x", dtype="float32", shape=(1, 2, 3, 1))
IDS = TensorSpec(name="ids", dtype="int32", shape=(1, None))


def test_feed_turns_images_and_keeps_values() -> None:
    array = np.arange(12, dtype=np.float64).reshape(2, 1, 2, 3)
    (turned,) = as_arrays([array], "NCHW", [SPEC])
    assert (turned.dtype, turned.shape, turned[1, 1, 2, 0]) == (np.float32, (2, 2, 3, 1), 11)
    (ids,) = as_arrays([np.array([[1, -(2**31)]], np.int64)], None, [IDS])
    assert (ids.dtype, ids.tolist()) == (np.int32, [[1, -(2**31)]])
    (pixels,) = as_arrays([np.full((1, 2, 3, 1), 255, np.uint8)], "NHWC", [SPEC])
    assert (pixels.dtype, pixels.max()) == (np.float32, 255)


@pytest.mark.parametrize(
    ("array", "spec", "message"),
    [
        (np.array([[2**31]], np.int64), IDS, "int32, which cannot hold every value"),
        (np.array([[0.5]], np.float32), IDS, "int32, which cannot hold every value"),
        (np.array([[np.nan]], np.float32), IDS, "int32, which cannot hold every value"),
        (np.full((1, 2, 3, 1), 2**24 + 1, np.int64), SPEC, "float32, which cannot hold every value"),
        (np.full((1, 2, 3, 1), "a"), SPEC, "expected dtype float32; received <U1"),
        (np.zeros((1, 3, 2, 1), np.float32), SPEC, r"expected shape \[batch, 2, 3, 1\]; received \[1, 3, 2, 1\]"),
    ],
)
def test_feed_refuses_what_would_lose_values(array: Any, spec: TensorSpec, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_arrays([array], None, [spec])


def test_feed_reads_integers_of_a_quantized_input_as_quantized() -> None:
    spec = TensorSpec(
        name="x",
        dtype="float32",
        shape=(1, 1),
        quantization=Quantization(scale=(0.5,), zero_point=(128,), dtype="uint8"),
    )
    assert as_arrays([np.array([[130]], np.uint8)], None, [spec])[0].tolist() == [[1.0]]
