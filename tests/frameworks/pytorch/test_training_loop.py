"""The training loop: determinism, resuming, patience, losses, and errors that name the place."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_training as tiny
import torch
from torch import nn

from edgekit.data.dataset import ArraySplit
from edgekit.errors import DataError, ModelError, RecipeError, ToolError
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.device import place
from edgekit.frameworks.pytorch.evaluate import evaluate
from edgekit.frameworks.pytorch.feed import Feed, epoch_order, share_of_rank
from edgekit.frameworks.pytorch.loop import run_epochs
from edgekit.frameworks.pytorch.optimizer import learning_rate, make_optimizer
from edgekit.process import EVENTS_VARIABLE
from edgekit.recipe.schema import TrainSection
from edgekit.records import EpochMetrics


class Cut(Exception):
    """Stands for a kill: leaves the loop wherever it is."""


def trained(settings: TrainSection | None = None, **options: object) -> tuple[nn.Module, tuple[EpochMetrics, ...]]:
    module = tiny.perceptron()
    metrics = run_epochs(module, tiny.vectors(), settings or tiny.settings(), **options)  # type: ignore[arg-type]
    return module, metrics


def test_training_learns_when_classes_are_linear() -> None:
    module, metrics = trained(tiny.settings(epochs=15))
    assert metrics[-1].loss < 0.6 * metrics[0].loss
    assert evaluate(module, tiny.vectors().test) > 0.8
    assert [metric.epoch for metric in metrics] == list(range(15))


def test_weights_are_identical_when_the_seed_is() -> None:
    assert tiny.same_weights(trained()[0], trained()[0])
    assert not tiny.same_weights(trained()[0], trained(tiny.settings(seed=1))[0])


def test_weights_do_not_depend_on_the_global_generator_when_training_starts() -> None:
    module = tiny.perceptron()
    torch.manual_seed(12345)
    run_epochs(module, tiny.vectors(), tiny.settings())
    assert tiny.same_weights(module, trained()[0])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("cut_after", [1, 2])
def test_resumed_training_ends_identical_when_it_was_cut_off(tmp_path: Path, optimizer: str, cut_after: int) -> None:
    settings = tiny.settings(epochs=4, optimizer=optimizer, patience=3)

    def cut(step: int, steps: int) -> None:
        if step == cut_after * 3 + 1:  # in the middle of an epoch
            raise Cut

    with pytest.raises(Cut):
        trained(settings, checkpoints=Checkpoints(tmp_path), after_step=cut)
    epochs_run: list[int] = []
    resumed, metrics = trained(settings, checkpoints=Checkpoints(tmp_path), on_epoch_start=epochs_run.append)
    whole, expected = trained(settings)
    assert epochs_run == list(range(cut_after, 4))
    assert tiny.same_weights(resumed, whole)
    assert [dataclasses.replace(m, samples_per_second=0) for m in metrics] == [
        dataclasses.replace(m, samples_per_second=0) for m in expected
    ]


def test_finished_training_does_no_work_when_called_again(tmp_path: Path) -> None:
    whole, _ = trained(checkpoints=Checkpoints(tmp_path))
    epochs_run: list[int] = []
    again, metrics = trained(checkpoints=Checkpoints(tmp_path), on_epoch_start=epochs_run.append)
    assert epochs_run == []
    assert len(metrics) == 3
    assert tiny.same_weights(again, whole)


@pytest.mark.parametrize("change", [{"lr": 2e-2}, {"epochs": 5}, {"seed": 3}])
def test_checkpoint_is_not_used_when_settings_changed(tmp_path: Path, change: dict[str, object]) -> None:
    trained(checkpoints=Checkpoints(tmp_path))
    epochs_run: list[int] = []
    trained(tiny.settings(**change), checkpoints=Checkpoints(tmp_path), on_epoch_start=epochs_run.append)
    assert epochs_run[0] == 0


def test_best_weights_are_kept_when_patience_ends() -> None:
    """From the second epoch on, the weights are ruined after every step."""
    module = tiny.perceptron()

    def ruin(step: int, steps: int) -> None:
        if step >= 3:
            with torch.no_grad():
                module[4].weight.zero_()

    metrics = run_epochs(module, tiny.vectors(), tiny.settings(epochs=9, patience=2), after_step=ruin)
    assert len(metrics) == 3, "one good epoch, two worse ones"
    assert module[4].weight.any()


def test_early_epochs_do_not_count_as_best_when_pruning_is_not_done() -> None:
    module = tiny.perceptron()

    def ruin(step: int, steps: int) -> None:
        if step >= 3:
            with torch.no_grad():
                module[4].weight.zero_()

    metrics = run_epochs(module, tiny.vectors(), tiny.settings(epochs=4, patience=1), after_step=ruin, best_from=2)
    assert len(metrics) == 4
    assert not module[4].weight.any(), "the dense first epoch must not come back"


def test_nan_loss_is_an_error_that_names_epoch_and_step() -> None:
    tiny.exploding.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(
        ToolError, match=r"loss became (inf|-inf|nan) in epoch 1 of 3, step 2 of 3 \(train\).*train\.lr"
    ):
        trained(tiny.settings(loss="tiny_training:exploding"))


def test_nan_weights_are_an_error_when_only_the_last_step_made_them() -> None:
    def poison(step: int, steps: int) -> None:
        if step == 2:
            with torch.no_grad():
                module[0].weight[0, 0] = math.nan

    module = tiny.perceptron()
    with pytest.raises(ToolError, match="weights became NaN or infinite in epoch 1 of 3"):
        run_epochs(module, tiny.vectors(), tiny.settings(), after_step=poison)


def test_own_loss_is_called_when_named() -> None:
    _, metrics = trained(tiny.settings(loss="tiny_training:always_zero"))
    assert metrics[0].loss == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("hinge", r"train\.loss: expected cross_entropy, mse, or package.module:callable"),
        ("no_such_module:loss", "cannot be imported"),
        ("tiny_training:nothing", "holds no callable 'nothing'"),
    ],
)
def test_loss_is_refused_when_it_names_nothing(loss: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        trained(tiny.settings(loss=loss))


def test_mse_learns_column_targets_when_labels_are_flat() -> None:
    """``[B]`` targets against ``[B, 1]`` outputs would broadcast to ``[B, B]`` and learn the mean."""
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 8)).astype(np.float32)
    data = tiny.dataset_of(x, x[:, 0] * 2, task="regression")
    torch.manual_seed(0)
    module = nn.Linear(8, 1)
    metrics = run_epochs(module, data, tiny.settings(epochs=60, loss="mse", lr=5e-2, weight_decay=0.0))
    assert metrics[-1].validation_loss is not None
    assert metrics[-1].validation_loss < 0.01
    assert metrics[-1].validation_accuracy is None


def test_label_smoothing_raises_the_loss_when_outputs_are_sure() -> None:
    plain = trained(tiny.settings(epochs=8))[1][-1].loss
    assert trained(tiny.settings(epochs=8, label_smoothing=0.3))[1][-1].loss > plain


@pytest.mark.parametrize("label", [3, -1])
def test_label_is_refused_when_the_output_has_no_such_class(label: int) -> None:
    data = tiny.vectors()
    labels = data.train.labels.copy()  # type: ignore[attr-defined]
    labels[7] = label
    wrong = dataclasses.replace(data, train=ArraySplit(data.train.inputs, labels))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=f"train split: expected labels from 0 to 2.*received {label}"):
        run_epochs(tiny.perceptron(), wrong, tiny.settings())


def test_training_is_refused_when_nothing_can_be_trained() -> None:
    with pytest.raises(ModelError, match="trainable parameters"):
        run_epochs(nn.Flatten(), tiny.vectors(), tiny.settings())


def test_images_are_turned_when_data_are_channels_last() -> None:
    first, second = tiny.convolutions(), tiny.convolutions()
    run_epochs(first, tiny.images(), tiny.settings(epochs=1))
    run_epochs(second, tiny.images(layout="NHWC"), tiny.settings(epochs=1))
    assert tiny.same_weights(first, second)


def test_memory_format_is_contiguous_again_when_trained_channels_last() -> None:
    module = tiny.convolutions()
    run_epochs(module, tiny.images(), tiny.settings(epochs=1, channels_last=True))
    assert all(parameter.is_contiguous() for parameter in module.parameters())
    assert not module.training


def test_bf16_computes_in_16_bits_and_keeps_float_weights_and_inputs() -> None:
    seen: dict[str, torch.dtype] = {}
    module = tiny.convolutions()
    module[0].register_forward_hook(lambda _m, inputs, output: seen.update(input=inputs[0].dtype, output=output.dtype))
    run_epochs(module, tiny.images(), tiny.settings(epochs=1, precision="bf16"))
    assert seen == {"input": torch.float32, "output": torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_one_batch_is_used_when_there_are_fewer_samples_than_the_batch() -> None:
    _, metrics = trained(tiny.settings(epochs=1, batch_size=1000))
    assert metrics[0].loss > 0


def test_progress_is_emitted_with_loss_metric_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_VARIABLE, str(writer))
    trained()
    os.close(writer)
    with os.fdopen(reader) as lines:
        events = [json.loads(line) for line in lines]
    ends = [event for event in events if event["step"] == event["steps"]]
    assert [(event["epoch"], event["epochs"], event["steps"]) for event in ends] == [(1, 3, 3), (2, 3, 3), (3, 3, 3)]
    assert all(event["type"] == "progress" and event["phase"] == "train" for event in events)
    assert all(event["rate"] > 0 and event["loss"] > 0 and 0 <= event["metric"] <= 1 for event in events)


def test_cosine_falls_from_peak_to_zero() -> None:
    rates = [learning_rate(tiny.settings(), 0.1, step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[50] == pytest.approx(0.05)
    assert rates[-1] < 1e-4
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(tiny.settings(schedule="constant"), 0.1, 99, 100) == 0.1


def test_biases_and_norms_do_not_decay() -> None:
    optimizer = make_optimizer(tiny.perceptron(), tiny.settings(weight_decay=0.5), 0.1)
    decays = {
        parameter.dim(): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays == {2: 0.5, 1: 0.0}


def test_place_refuses_a_device_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match="expected auto, cpu, cuda or cuda:<index>; received 'tpu'"):
        place(tiny.settings(device="tpu"))
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="expected one of the 0 CUDA devices"):
            place(tiny.settings(device="cuda"))
        with pytest.raises(RecipeError, match="fp16 needs a GPU"):
            place(tiny.settings(precision="fp16"))


def test_auto_is_plain_when_there_is_only_a_cpu() -> None:
    found = place(tiny.settings(), tiny.convolutions())
    assert (found.autocast, found.compile, found.channels_last, found.processes) == ("fp32", False, False, 1)


def test_evaluate_counts_top1() -> None:
    x = np.eye(3, dtype=np.float32)
    assert evaluate(nn.Identity(), ArraySplit((x,), np.array([0, 1, 0]))) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="test split: expected class labels"):
        evaluate(nn.Identity(), ArraySplit((x,)))


def test_order_is_another_each_epoch_and_visits_all() -> None:
    first, second = epoch_order(50, 0, 0), epoch_order(50, 0, 1)
    assert sorted(first) == list(range(50)) == sorted(second)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, epoch_order(50, 0, 0))


def test_shares_of_ranks_make_up_the_batches_of_one_process() -> None:
    order = epoch_order(50, 0, 0)
    whole = share_of_rank(order, 16, 0, 1)
    parts = [share_of_rank(order, 16, rank, 2) for rank in range(2)]
    assert [len(batch) for batch in whole] == [16, 16, 16]
    for batch, *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch, np.concatenate(halves))
    with pytest.raises(DataError, match="multiple of 3"):
        share_of_rank(order, 16, 0, 3)


class SlowSplit:
    """A split outside memory that cannot read one of its samples."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 40

    def batch(self, indices: object) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        picked = np.asarray(indices)
        if self.broken in picked:
            raise DataError(f"cannot read sample {self.broken}")
        return (picked[:, None].astype(np.float64),), picked % 3


def test_feed_reads_ahead_in_order_when_the_split_is_outside_memory() -> None:
    chunks = [np.arange(start, start + 4) for start in range(0, 40, 4)]
    found = list(Feed(SlowSplit(), torch.device("cpu")).batches(chunks))
    assert torch.equal(torch.cat([inputs[0] for inputs, _ in found])[:, 0], torch.arange(40.0))
    assert found[0][0][0].dtype == torch.float32
    assert found[0][1] is not None
    assert found[0][1].dtype == torch.int64


def test_feed_passes_the_error_on_when_a_sample_cannot_be_read() -> None:
    chunks = [np.arange(start, start + 4) for start in range(0, 40, 4)]
    with pytest.raises(DataError, match="cannot read sample 30"):
        list(Feed(SlowSplit(broken=30), torch.device("cpu")).batches(chunks))
