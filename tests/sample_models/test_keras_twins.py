"""Every sample model in Keras: the parameters of its PyTorch twin and, with its weights, the same outputs."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import torch

from edgekit.data.sources import load_dataset
from edgekit.formats.tflite.inspect import inspect as inspect_tflite
from edgekit.frameworks.keras.feed import as_arrays
from edgekit.recipe.load import load_recipe
from edgekit.records import TensorSpec
from sample_models.carry_weights import carry

ROOT = Path(__file__).parents[2]

SMALL: dict[str, dict[str, Any]] = {
    "digits": {"width": 4},
    "gru_sequence": {"hidden": 7},
    "image_classification": {"width": 4},
    "keyword_spotting": {"channels": 6, "blocks": 2},
    "mobilenet_v2": {"width": 0.25},
    "mobilenet_v3_small": {},
    "person_detection": {"width": 0.125},
    "text_classifier": {"vocabulary": 20, "length": 6, "width": 12, "depth": 2, "heads": 3},
    "vision_transformer": {"size": 12, "width": 12, "depth": 2, "heads": 3},
}
"""Arguments of ``build``, the same for both frameworks, where they make a network small."""

KERAS_ONLY = {"mobilenet_v2": {"size": 64}, "mobilenet_v3_small": {"size": 64}, "gru_sequence": {"steps": 6}}
"""Arguments that say a shape which PyTorch models leave open."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are too small to share; several threads on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_torch(name: str, **arguments: Any) -> torch.nn.Module:
    return importlib.import_module(f"sample_models.{name}.model_pytorch").build(**arguments)


def build_keras(name: str, **arguments: Any) -> tf_keras.Model:
    return importlib.import_module(f"sample_models.{name}.model_keras").build(**arguments)


def samples(twin: tf_keras.Model, count: int) -> list[np.ndarray]:
    """Random inputs of a Keras model, channels last; masks end in padding, with different lengths."""
    generator = np.random.default_rng(3)
    arrays = []
    for tensor in twin.inputs:
        shape = (count, *tensor.shape[1:])
        if tensor.name == "mask":
            lengths = 2 + np.arange(count) % (shape[1] - 1)
            arrays.append((np.arange(shape[1]) < lengths[:, None]).astype(np.int32))
        elif tensor.dtype == tf.int32:
            arrays.append(generator.integers(0, 20, shape, dtype=np.int32))
        else:
            arrays.append(generator.standard_normal(shape, dtype=np.float32))
    return arrays


def run_keras(twin: tf_keras.Model, arrays: list[np.ndarray]) -> np.ndarray:
    return twin(arrays if len(arrays) > 1 else arrays[0], training=False).numpy()


def run_torch(source: torch.nn.Module, arrays: list[np.ndarray]) -> np.ndarray:
    first = [array.transpose(0, 3, 1, 2) if array.ndim == 4 else array for array in arrays]
    tensors = [torch.tensor(array) for array in first]
    with torch.no_grad():
        return source(*(value.long() if value.dtype == torch.int32 else value for value in tensors)).numpy()


def lively(source: torch.nn.Module, arrays: list[np.ndarray]) -> torch.nn.Module:
    """Give a network weights and moving averages with which every layer tells one sample from another.

    Most activations stay on the straight part of a ReLU (``+ 1``): fifty layers of random bends are chaotic, and would
    blow the rounding of either framework up to 2e-5, measured against float64.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in source.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    for part in source.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # averages over all that it sees
            part.bias.data += 1
    source.train()
    run_torch(source, arrays)
    return source.eval()


def twins(name: str) -> tuple[torch.nn.Module, tf_keras.Model]:
    """The two networks with the same lively weights."""
    twin = build_keras(name, **SMALL[name], **KERAS_ONLY.get(name, {}))
    source = lively(build_torch(name, **SMALL[name]), samples(twin, 8))
    carry(source, twin)
    return source, twin


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, as a share of the largest output."""
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / np.abs(one).max())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_keras_model_takes_the_arguments_of_its_twin(name: str) -> None:
    expected = inspect.signature(importlib.import_module(f"sample_models.{name}.model_pytorch").build).parameters
    found = inspect.signature(importlib.import_module(f"sample_models.{name}.model_keras").build).parameters
    assert [(key, value.default) for key, value in found.items()][: len(expected)] == [
        (key, value.default) for key, value in expected.items()
    ]
    assert set(found) - set(expected) == set(KERAS_ONLY.get(name, {}))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_keras_model_has_as_many_parameters_as_its_twin_at_full_size(name: str) -> None:
    source, twin = build_torch(name), build_keras(name)
    trainable = sum(parameter.numel() for parameter in source.parameters())
    averages = sum(value.numel() for value in source.buffers() if value.is_floating_point())
    assert sum(weight.shape.num_elements() for weight in twin.trainable_weights) == trainable
    assert sum(weight.shape.num_elements() for weight in twin.non_trainable_weights) == averages


@pytest.mark.parametrize("name", sorted(SMALL))
def test_keras_model_answers_as_its_twin_when_weights_are_carried_over(name: str) -> None:
    source, twin = twins(name)
    arrays = samples(twin, 2)
    expected = run_torch(source, arrays)
    assert np.abs(expected[0] - expected[1]).max() > 0.02 * np.abs(expected).max()  # the samples matter
    assert distance(expected, run_keras(twin, arrays)) < 1e-5


def test_text_padding_does_not_change_the_scores_of_the_keras_model() -> None:
    twin = twins("text_classifier")[1]
    ids, mask = samples(twin, 4)
    noise = np.where(mask == 0, (ids + 7) % 20, ids)
    scores = run_keras(twin, [ids, mask])
    np.testing.assert_allclose(run_keras(twin, [noise, mask]), scores, atol=1e-6)
    assert distance(scores, run_keras(twin, [ids, np.ones_like(mask)])) > 1e-2


@pytest.mark.parametrize("name", ["digits", "mobilenet_v3_small"])
def test_keras_model_moves_its_averages_as_its_twin_when_it_trains(name: str) -> None:
    source, twin = twins(name)
    arrays = samples(twin, 8)
    for part in source.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.1  # PyTorch's default, which every sample model has
    run_torch(source.train(), arrays)
    twin(arrays[0], training=True)
    norms = [layer for layer in twin.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for layer in norms:
        expected = source.get_submodule(layer.name)
        assert distance(expected.running_mean.numpy(), layer.moving_mean.numpy()) < 1e-4, layer.name
        assert distance(expected.running_var.numpy(), layer.moving_variance.numpy()) < 1e-4, layer.name


def test_carry_refuses_models_that_are_no_twins() -> None:
    short, long = build_keras("keyword_spotting", blocks=1), build_keras("keyword_spotting", blocks=2)
    with pytest.raises(ValueError, match=r"a module named as the layer 'blocks\.1\.depthwise'"):
        carry(build_torch("keyword_spotting", blocks=1), long)
    with pytest.raises(ValueError, match=r"none takes blocks\.1\.depthwise\.weight, "):
        carry(build_torch("keyword_spotting", blocks=2), short)
    with pytest.raises(ValueError, match=r"shape"):
        carry(build_torch("keyword_spotting", blocks=1, classes=3), short)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "person_detection", "text_classifier", "vision_transformer"])
def test_keras_model_with_layers_of_its_own_comes_back_the_same_when_saved(name: str, tmp_path: Path) -> None:
    twin = build_keras(name, **SMALL[name], **KERAS_ONLY.get(name, {}))
    twin.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.name for layer in again.layers] == [layer.name for layer in twin.layers]
    arrays = samples(twin, 2)
    np.testing.assert_array_equal(run_keras(again, arrays), run_keras(twin, arrays))


def test_person_detection_starts_near_the_identity_and_the_same_when_the_seed_is() -> None:
    kernels = []
    for _ in range(2):
        tf_keras.utils.set_random_seed(5)
        twin = build_keras("person_detection")
        kernels.append([twin.get_layer(f"blocks.{number}.depthwise").depthwise_kernel.numpy() for number in (6, 7)])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    first, second = kernels[0]
    assert not np.array_equal(first, second)
    assert np.abs(first[1, 1] - 1).max() <= 0.1
    assert np.abs(np.delete(first.reshape(9, -1), 4, axis=0)).max() <= 0.1
    assert first.std() > 0.05


def tflite_operators(twin: tf_keras.Model, path: Path) -> Counter[str]:
    """Convert for one sample, in floating point, and count the operators."""
    specs = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=tensor.name) for tensor in twin.inputs]
    function = tf.function(lambda *inputs: twin(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)], twin)
    path.write_bytes(converter.convert())
    return Counter(operator.type for operator in inspect_tflite(path).operators)


CONVOLUTIONAL = {"digits": (6, 0, 2), "keyword_spotting": (3, 2, 0)}
"""Convolutions, depthwise ones and sums."""


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_convolutional_model_becomes_convolutions_and_sums_in_tflite(name: str, tmp_path: Path) -> None:
    twin = build_keras(name, **SMALL[name], **KERAS_ONLY.get(name, {}))
    found = tflite_operators(twin, tmp_path / "model.tflite")
    paddings = sum(isinstance(layer, tf_keras.layers.ZeroPadding2D) for layer in twin.layers)
    convolutions, depthwise, sums = CONVOLUTIONAL[name]
    expected = {"CONV_2D": convolutions, "DEPTHWISE_CONV_2D": depthwise, "ADD": sums, "PAD": paddings}
    assert +found == +Counter(expected | {"MEAN": 1, "FULLY_CONNECTED": 1})


def test_mobilenet_v3_gets_tflites_hard_swish(tmp_path: Path) -> None:
    bottleneck = importlib.import_module("sample_models.mobilenet_v3_small.model_keras").bottleneck
    image = tf_keras.layers.Input((4, 4, 8), name="image")
    sizes = {"hidden": 16, "channels": 8, "kernel": 3, "stride": 1}
    block = tf_keras.Model(image, bottleneck(image, **sizes, squeeze=True, hard_swish=True, name="block"))
    found = tflite_operators(block, tmp_path / "model.tflite")
    # A gate costs two products: with a sixth, and with the channel.
    expected = {"CONV_2D": 4, "DEPTHWISE_CONV_2D": 1, "HARD_SWISH": 2, "MEAN": 1, "MUL": 2, "ADD": 1}
    assert +found == +Counter(expected)


@pytest.mark.parametrize(("name", "blocks"), [("vision_transformer", 2), ("text_classifier", 2)])
def test_attention_model_gets_plain_products_and_tflites_gelu(name: str, blocks: int, tmp_path: Path) -> None:
    found = tflite_operators(build_keras(name, **SMALL[name]), tmp_path / "model.tflite")
    assert found["GELU"] == found["SOFTMAX"] == blocks
    assert found["BATCH_MATMUL"] == 2 * blocks
    assert found["FULLY_CONNECTED"] == 6 * blocks + 1
    assert not {"SHAPE", "PACK", "POW", "ERF"} & set(found)


def test_recurrent_model_is_unrolled_in_tflite(tmp_path: Path) -> None:
    found = tflite_operators(build_keras("gru_sequence", steps=6), tmp_path / "model.tflite")
    assert found["LOGISTIC"] == 2 * found["TANH"] == 12
    assert "WHILE" not in found


@pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated:DeprecationWarning")  # when TFMOT loads
@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_quantization_aware_training_takes_every_layer_of_a_convolutional_model(name: str) -> None:
    twin = build_keras(name, **SMALL[name], **KERAS_ONLY.get(name, {}))
    quantized = importlib.import_module("tensorflow_model_optimization").quantization.keras.quantize_model(twin)
    wrapped = {layer.name for layer in quantized.layers}
    assert wrapped >= {f"quant_{layer.name}" for layer in twin.layers if layer.weights}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_recipes_data_fit_the_twin_of_the_recipes_model(name: str) -> None:
    recipe = load_recipe(ROOT / "sample_models" / name / "recipe.yaml")
    twin = build_keras(name, **recipe.model.args)
    dataset = load_dataset(recipe.data)
    specs = [
        TensorSpec(name=tensor.name, dtype=tensor.dtype.name, shape=(None, *tensor.shape[1:])) for tensor in twin.inputs
    ]
    fed = as_arrays(dataset.sample(), dataset.layout, specs)
    assert run_keras(twin, list(fed)).shape == (1, len(dataset.classes))
