"""Training by ``model.fit``: determinism, resuming, patience, losses, devices, and errors that name the place."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_keras as tiny

from edgekit.data.dataset import ArraySplit
from edgekit.errors import DataError, ModelError, RecipeError, ToolError
from edgekit.frameworks.keras.checkpoint import Checkpoints
from edgekit.frameworks.keras.fit import Hooks
from edgekit.frameworks.keras.objective import as_logits, gives_probabilities, make_loss
from edgekit.frameworks.keras.optimizer import decay_term, make_optimizer
from edgekit.frameworks.keras.strategy import place
from edgekit.frameworks.keras.train import train
from edgekit.frameworks.requests import TrainRequest
from edgekit.process import EVENTS_VARIABLE
from edgekit.recipe.schema import DataSection, DistilRule, ModelSection, PruneRule

LIBRARIES = ("keras", "tf_keras")


class Cut(Exception):
    """Stands for a kill: leaves the loop wherever it is."""


def request(folder: Path, *, model: str = "perceptron", **changes: object) -> TrainRequest:
    values: dict[str, object] = {
        "model": ModelSection(source=f"tiny_keras:{model}"),
        "data": DataSection(module="tiny_keras:vectors"),
        "train": tiny.settings(),
        "prune": None,
        "distil": None,
        "work_dir": folder / "work",
        "output_dir": folder / "out",
        **changes,
    }
    return TrainRequest(**values)  # type: ignore[arg-type]


def without_rate(metrics: Any) -> list[Any]:
    return [dataclasses.replace(found, samples_per_second=0) for found in metrics]


@pytest.mark.parametrize("library", LIBRARIES)
def test_resumed_training_ends_identical_when_it_was_cut_off(tmp_path: Path, library: str) -> None:
    settings = tiny.settings(epochs=3, patience=3)

    def cut(step: int, steps: int) -> None:
        if step == 4:  # in the middle of the second epoch
            raise Cut

    with pytest.raises(Cut):
        tiny.fit(
            tiny.perceptron(library),
            tiny.vectors(),
            settings,
            checkpoints=Checkpoints(tmp_path),
            hooks=Hooks(after_step=cut),
        )
    started: list[int] = []
    resumed, whole = tiny.perceptron(library), tiny.perceptron(library)
    metrics = tiny.fit(
        resumed,
        tiny.vectors(),
        settings,
        checkpoints=Checkpoints(tmp_path),
        hooks=Hooks(on_epoch_start=started.append),
    )
    expected = tiny.fit(whole, tiny.vectors(), settings)
    assert started == [1, 2]
    assert tiny.same_weights(resumed, whole)
    assert without_rate(metrics) == without_rate(expected)


def test_training_learns_and_tells_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_VARIABLE, str(writer))
    model = tiny.plain_perceptron()
    metrics = tiny.fit(model, tiny.vectors(), tiny.settings(epochs=8, batch_size=16))
    os.close(writer)
    with os.fdopen(reader) as lines:
        events = [json.loads(line) for line in lines]
    assert metrics[-1].loss < 0.6 * metrics[0].loss
    assert tiny.accuracy(model, tiny.vectors()) > 0.8
    assert metrics[-1].learning_rate < 1e-4, "the cosine has come down"
    assert metrics[-1].accuracy is not None
    ends = [event for event in events if event["step"] == event["steps"]]
    assert [(event["epoch"], event["epochs"], event["steps"]) for event in ends] == [(n, 8, 6) for n in range(1, 9)]
    assert all(event["type"] == "progress" and event["phase"] == "train" for event in events)
    assert all(event["rate"] > 0 and event["loss"] > 0 and 0 <= event["metric"] <= 1 for event in events)


def test_finished_training_does_no_work_when_called_again(tmp_path: Path) -> None:
    first, second, third = (tiny.plain_perceptron() for _ in range(3))
    tiny.fit(first, tiny.vectors(), tiny.settings(epochs=1), checkpoints=Checkpoints(tmp_path))
    started: list[int] = []
    options = {"checkpoints": Checkpoints(tmp_path), "hooks": Hooks(on_epoch_start=started.append)}
    metrics = tiny.fit(second, tiny.vectors(), tiny.settings(epochs=1), **options)
    assert (started, len(metrics)) == ([], 1)
    assert tiny.same_weights(first, second)
    tiny.fit(third, tiny.vectors(), tiny.settings(epochs=1, lr=2e-2), **options)
    assert started == [0], "other settings do not go on from this checkpoint"


def test_best_weights_are_kept_when_patience_ends() -> None:
    """From the second epoch on, the weights are ruined after every step; early epochs may be ruled out."""

    def run(best_from: int) -> tuple[int, bool]:
        model = tiny.plain_perceptron()

        def ruin(step: int, steps: int) -> None:
            if step >= 3:
                model.get_layer("last").kernel.assign(np.zeros((32, 3), np.float32))

        metrics = tiny.fit(
            model,
            tiny.vectors(),
            tiny.settings(epochs=4, patience=1),
            hooks=Hooks(after_step=ruin),
            best_from=best_from,
        )
        return len(metrics), bool(tiny.weight(model, "last").any())

    assert run(best_from=0) == (2, True)
    assert run(best_from=2) == (4, False), "the first epoch must not come back"


def test_nan_loss_is_an_error_that_names_epoch_and_step() -> None:
    with pytest.raises(ToolError, match=r"loss became nan in epoch 1 of 3, step 1 of 3 \(train\).*train\.lr"):
        tiny.fit(tiny.plain_perceptron(), tiny.vectors(), tiny.settings(loss="tiny_keras:exploding"))


def test_nan_weights_are_an_error_when_only_the_last_step_made_them() -> None:
    model = tiny.plain_perceptron()

    def poison(step: int, steps: int) -> None:
        if step == 2:
            model.get_layer("first").kernel.assign(np.full((8, 32), np.nan, np.float32))

    with pytest.raises(ToolError, match="weights became NaN or infinite in epoch 1 of 3"):
        tiny.fit(model, tiny.vectors(), tiny.settings(), hooks=Hooks(after_step=poison))


def test_loss_of_the_users_own_is_called_when_named() -> None:
    metrics = tiny.fit(tiny.plain_perceptron(), tiny.vectors(), tiny.settings(epochs=1, loss="tiny_keras:always_zero"))
    assert metrics[0].loss == pytest.approx(0.5)


def test_mse_learns_column_targets_when_labels_are_flat() -> None:
    """``[B]`` targets against ``[B, 1]`` outputs would broadcast to ``[B, B]`` and learn the mean."""
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 8)).astype(np.float32)
    data = tiny.dataset_of(x, x[:, 0] * 2, task="regression")
    library = tiny.LIBRARIES["tf_keras"]
    model = library.Sequential([library.layers.Input((8,)), library.layers.Dense(1)])
    metrics = tiny.fit(model, data, tiny.settings(epochs=12, batch_size=8, loss="mse", lr=1e-1, weight_decay=0.0))
    assert metrics[-1].validation_loss is not None
    assert metrics[-1].validation_loss < 0.01
    assert metrics[-1].validation_accuracy is None


def test_softmax_outputs_train_as_logits_do() -> None:
    """Keras models often end in a softmax; a second one in the loss would flatten every gradient."""
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32) * 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert (gives_probabilities(shares), gives_probabilities(logits)) == (True, False)
    labels = np.arange(6) % 3
    for smoothing in (0.0, 0.2):
        settings = tiny.settings(label_smoothing=smoothing)
        one = float(make_loss(settings, probabilities=True)(shares, labels))
        other = float(make_loss(settings, probabilities=False)(logits, labels))
        assert one == pytest.approx(other, rel=1e-5)
    targets = np.eye(3)[labels] * 0.8 + 0.2 / 3
    assert one == pytest.approx(float(-(targets * np.log(shares)).sum(axis=1).mean()), rel=1e-5)
    np.testing.assert_allclose(np.exp(np.asarray(as_logits(shares, True))), shares, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("hinge", r"train\.loss: expected cross_entropy, mse, or package.module:callable"),
        ("no_such_module:loss", "cannot be imported"),
        ("tiny_keras:nothing", "holds no callable 'nothing'"),
    ],
)
def test_loss_is_refused_when_it_names_nothing(loss: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny.fit(tiny.plain_perceptron(), tiny.vectors(), tiny.settings(loss=loss))


@pytest.mark.parametrize("label", [3, -1])
def test_label_is_refused_when_the_output_has_no_such_class(label: int) -> None:
    data = tiny.vectors()
    labels = data.train.labels.copy()  # type: ignore[attr-defined]
    labels[7] = label
    wrong = dataclasses.replace(data, train=ArraySplit(data.train.inputs, labels))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=f"train split: expected labels from 0 to 2.*received {label}"):
        tiny.fit(tiny.plain_perceptron(), wrong, tiny.settings())


def test_training_is_refused_when_nothing_can_be_trained() -> None:
    library = tiny.LIBRARIES["tf_keras"]
    model = library.Sequential([library.layers.Input((8,)), library.layers.Flatten()])
    with pytest.raises(ModelError, match="trainable parameters"):
        tiny.fit(model, tiny.vectors(), tiny.settings())


@pytest.mark.parametrize("library", LIBRARIES)
def test_bf16_computes_in_16_bits_and_keeps_float_weights(library: str) -> None:
    half, full = tiny.convolutions(library), tiny.convolutions(library)
    metrics = tiny.fit(half, tiny.images(layout="NHWC"), tiny.settings(epochs=1, precision="bf16"))
    expected = tiny.fit(full, tiny.images(), tiny.settings(epochs=1))
    assert {np.asarray(weight).dtype for weight in half.get_weights()} == {np.dtype(np.float32)}
    assert metrics[0].loss == pytest.approx(expected[0].loss, rel=2e-2)
    assert metrics[0].loss != expected[0].loss


@pytest.mark.parametrize("library", LIBRARIES)
def test_biases_and_norms_do_not_decay(library: str) -> None:
    model = tiny.perceptron(library)
    settings = tiny.settings(weight_decay=0.5, schedule="constant")
    optimizer = make_optimizer(model, settings, 0.1, 10)
    before = [np.array(variable.numpy()) for variable in model.trainable_variables]
    gradients = [np.zeros(value.shape, np.float32) for value in before]
    optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True)))
    for variable, value in zip(model.trainable_variables, before, strict=True):
        expected = value * (1 - 0.1 * 0.5) if value.ndim >= 2 else value
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


def test_decay_of_sgd_is_the_gradient_of_an_l2_penalty_without_its_value() -> None:
    import tensorflow as tf

    model = tiny.plain_perceptron()
    with tf.GradientTape() as tape:
        term = decay_term(model, tiny.settings(optimizer="sgd", weight_decay=0.5))
    kernel = model.get_layer("first").kernel
    assert float(term) == 0.0
    np.testing.assert_allclose(tape.gradient(term, kernel), 0.5 * kernel.numpy(), rtol=1e-6)


def test_place_refuses_what_this_machine_has_not() -> None:
    with pytest.raises(RecipeError, match="expected auto, cpu, cuda or cuda:<index>; received 'tpu'"):
        place(tiny.settings(device="tpu"))
    with pytest.raises(RecipeError, match="expected one of the 0 CUDA devices"):
        place(tiny.settings(device="cuda"))
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        place(tiny.settings(precision="fp16"))
    with pytest.raises(RecipeError, match=r"train\.devices: expected at most 1.*received 2"):
        place(tiny.settings(devices=2))  # TensorFlow has started with one
    found = place(tiny.settings())
    assert (found.autocast, found.compile, found.replicas, found.plain) == ("fp32", False, 1, True)


TWO_DEVICES = """
import sys
from pathlib import Path
from edgekit.frameworks.keras.train import train
from test_keras_train import shared_batches
train(shared_batches(Path(sys.argv[1]), devices=2))
"""


def shared_batches(folder: Path, devices: int) -> TrainRequest:
    settings = tiny.settings(epochs=2, devices=devices)
    rule = PruneRule(sparsity=0.5, every_steps=1, end=0.5)
    return request(folder, model="plain_perceptron", train=settings, prune=rule)


def test_two_devices_train_as_one_does_when_the_batch_is_the_same(tmp_path: Path) -> None:
    """In a process of its own: a CPU can be split only before TensorFlow starts."""
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path)]
    folders = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[2])))
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "PYTHONPATH": folders})
    alone = train(shared_batches(tmp_path / "alone", devices=1))
    with np.load(alone.weights) as one, np.load(tmp_path / "out" / "weights.npz") as both:
        assert set(one) == set(both)
        for name, expected in one.items():
            np.testing.assert_allclose(both[name], expected, rtol=1e-4, atol=1e-5)
            assert expected.ndim < 2 or (both[name] == 0).mean() == 0.5


@pytest.mark.parametrize("library", LIBRARIES)
def test_stage_trains_and_writes_the_same_bytes_when_it_runs_twice(tmp_path: Path, library: str) -> None:
    model = ModelSection(source="tiny_keras:unseeded", args={"library": library})
    results = [train(dataclasses.replace(request(tmp_path / name), model=model)) for name in ("a", "b")]
    assert results[0].weights.name == "weights.npz"
    assert results[0].weights.read_bytes() == results[1].weights.read_bytes()
    assert results[0].source.inputs[0].shape == (1, 8)
    assert results[0].report is not None
    assert (results[0].report.device, results[0].report.autocast) == ("cpu", "fp32")
    assert results[0].source_accuracy is not None
    again = request(tmp_path / "c", train=tiny.settings(seed=1))
    assert train(dataclasses.replace(again, model=model)).weights.read_bytes() != results[0].weights.read_bytes()


def test_weights_are_saved_as_they_are_when_there_is_no_training(tmp_path: Path) -> None:
    result = train(request(tmp_path, train=None))
    with np.load(result.weights) as weights:
        np.testing.assert_array_equal(weights["first/0"], tiny.weight(tiny.perceptron(), "first"))
    assert result.report is None
    assert result.source_accuracy is not None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": None, "prune": PruneRule(sparsity=0.5)}, RecipeError, "compress.prune: expected a `train:` section"),
        ({"data": None}, RecipeError, "train: expected a `data:` section to train on"),
        ({"model": "two_classes"}, DataError, r"expected labels from 0 to 1.*2 classes; received 2"),
        (
            {"distil": DistilRule(teacher=ModelSection(source="tiny_keras:two_classes"))},
            ModelError,
            r"student's shape \(32, 3\); received \(32, 2\)",
        ),
    ],
)
def test_request_is_refused_before_training(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(request(tmp_path, **changes))  # type: ignore[arg-type]
