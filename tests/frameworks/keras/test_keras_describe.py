"""Describing: names, shapes, layers and figures, and how a model and its data are held together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_models as models
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgekit.data import ArraySplit, Dataset
from edgekit.errors import DataError, RecipeError
from edgekit.frameworks import framework_spec
from edgekit.frameworks.keras.describe import describe, describe_source
from edgekit.frameworks.keras.load import Source, load_source
from edgekit.frameworks.requests import ModelRequest
from edgekit.recipe.schema import ModelSection

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BOTH = pytest.mark.parametrize("library", models.LIBRARIES, ids=models.title)


def dataset(array: np.ndarray, **more: Any) -> Dataset:
    split = ArraySplit((array,), np.zeros(len(array), np.int64))
    return Dataset(train=split, validation=split, test=split, **more)


def source_of(library: Any, model: Any) -> Source:
    return Source(library.__name__, model, None)


@BOTH
def test_layers_are_named_through_nested_models(library: Any) -> None:
    described = describe_source(source_of(library, models.two_headed(library)), None, name="x")
    layers = dict(described.layers)
    assert described.framework == "keras"
    assert layers["stem"] == "Conv2D"
    assert layers["inner"] == "Sequential"
    assert layers["inner.up"] == layers["inner.down"] == "Dense"


@BOTH
def test_parameters_leave_statistics_out_and_frozen_weights_in(library: Any) -> None:
    model = models.two_headed(library)
    model.get_layer("stem").trainable = False
    described = describe_source(source_of(library, model), None, name="x")
    convolution, norm, inner, head = 3 * 3 * 3 * 4 + 4, 2 * 4, 4 * 5 + 5 + 5 * 4 + 4, 4 * 2 + 2
    assert described.parameters == convolution + norm + inner + head
    assert described.size_bytes == 4 * (described.parameters + 2 * 4)


def test_both_libraries_describe_the_same_model_alike() -> None:
    one, other = (
        describe_source(source_of(library, models.two_headed(library)), None, name="x") for library in models.LIBRARIES
    )
    assert (one.inputs, one.outputs, one.parameters, one.size_bytes) == (
        other.inputs,
        other.outputs,
        other.parameters,
        other.size_bytes,
    )


@BOTH
def test_digest_changes_with_a_weight_only(library: Any) -> None:
    model = models.dense(library)
    before = describe_source(source_of(library, model), None, name="x").digest
    assert describe_source(source_of(library, models.dense(library)), None, name="y").digest == before
    model.weights[0].assign(model.weights[0] + 1)
    assert describe_source(source_of(library, model), None, name="x").digest != before


@BOTH
def test_channels_first_images_reach_the_model_as_nhwc(library: Any) -> None:
    inputs = library.Input((None, None, 3), name="image")
    model = library.Model(inputs, library.layers.Conv2D(2, 1, name="conv")(inputs))
    data = dataset(np.zeros((4, 3, 8, 6), np.float32), layout="NCHW", input_names=("photo",))
    described = describe_source(source_of(library, model), data, name="x")
    assert [(spec.name, spec.shape, spec.layout) for spec in described.inputs] == [("photo", (1, 8, 6, 3), "NHWC")]
    assert [(spec.name, spec.shape) for spec in described.outputs] == [("conv", (1, 8, 6, 2))]


@BOTH
def test_model_and_data_are_held_together_when_shapes_differ(library: Any) -> None:
    source = source_of(library, models.dense(library))
    with pytest.raises(DataError, match=r"input 'x': expected shape \[batch, 4\]; received \[1, 7\]"):
        describe_source(source, dataset(np.zeros((4, 7), np.float32)), name="x")
    two = ArraySplit((np.zeros((4, 4), np.float32),) * 2, None)
    with pytest.raises(DataError, match=r"takes 1 inputs \(x\); the data give 2"):
        describe_source(source, Dataset(train=two, validation=two, test=two), name="x")


def test_outputs_of_one_layer_called_twice_have_two_names() -> None:
    for library in models.LIBRARIES:
        one, other = library.Input((2,), name="one"), library.Input((2,), name="other")
        shared = library.layers.Dense(3, name="shared")
        model = library.Model({"other": other, "one": one}, [shared(one), shared(other)])
        described = describe_source(source_of(library, model), None, name="x")
        assert [spec.name for spec in described.inputs] == ["one", "other"]
        assert [spec.name for spec in described.outputs] == ["shared", "shared_1"]


def test_rule_that_matches_no_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    models.offer(monkeypatch, "my_models", build=lambda: models.two_headed(keras))
    section = ModelSection(source="my_models:build")
    described = describe(ModelRequest(model=section, data=None, rules={"compress.quantize.skip": ("inner.up",)}))
    assert described.source == "my_models:build"
    with pytest.raises(RecipeError, match=r"compress.quantize.skip: the rule 'inner.upp' matches no layer.*inner\.up"):
        describe(ModelRequest(model=section, data=None, rules={"compress.quantize.skip": ("inner.upp",)}))


def test_tflite_is_described_by_its_operators(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(models.dense(tf_keras)).convert())
    described = describe_source(load_source(ModelSection(source=str(path))), None, name="x")
    assert [(spec.name, spec.shape) for spec in described.inputs] == [("x", (1, 4))]
    assert [(spec.name, spec.shape) for spec in described.outputs] == [("head", (1, 2))]
    assert [kind for _, kind in described.layers] == ["FULLY_CONNECTED"]
    assert described.parameters == 4 * 2 + 2


def test_spec_names_entries_that_exist_and_every_suffix_that_load_reads() -> None:
    from edgekit.contracts import load_entry
    from edgekit.frameworks.keras.load import FILE_SUFFIXES

    spec = framework_spec("keras")
    assert load_entry(spec.describe) is describe
    assert sorted(spec.suffixes) == sorted(FILE_SUFFIXES)
