"""The stage as the pipeline runs it, in one process and in two."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from edgekit.errors import DataError, RecipeError
from edgekit.frameworks.pytorch.train import train
from edgekit.frameworks.requests import TrainRequest, TrainResult
from edgekit.process import Event, run_child
from edgekit.recipe.schema import DataSection, DistilRule, ModelSection, PruneRule, TrainSection

ENTRY = "edgekit.frameworks.pytorch.train:train"


def request(folder: Path, *, model: str = "perceptron", **changes: object) -> TrainRequest:
    values: dict[str, object] = {
        "model": ModelSection(source=f"tiny_training:{model}"),
        "data": DataSection(module="tiny_training:vectors"),
        "train": tiny.settings(),
        "prune": None,
        "distil": None,
        "work_dir": folder / "work",
        "output_dir": folder / "out",
        **changes,
    }
    return TrainRequest(**values)  # type: ignore[arg-type]


def test_stage_trains_prunes_distils_and_writes_weights(tmp_path: Path) -> None:
    result = train(
        request(
            tmp_path,
            train=tiny.settings(epochs=12),
            prune=PruneRule(sparsity=0.5, skip=("4",)),
            distil=DistilRule(teacher=ModelSection(source="tiny_training:perceptron", args={"seed": 3}), alpha=0.1),
        )
    )
    weights = torch.load(result.weights, weights_only=True)
    assert float((weights["0.weight"] == 0).float().mean()) == 0.5
    assert list(weights) == list(tiny.perceptron().state_dict())
    assert result.report is not None
    assert (result.report.device, result.report.autocast) == ("cpu", "fp32")
    assert result.report.sparsity_by_layer == {"0": 0.5}
    assert [layer.reason for layer in result.report.skipped] == ["skipped by the rule '4'"]
    assert result.source_accuracy is not None
    assert result.source_accuracy > 0.6
    assert result.source.inputs[0].shape == (1, 8)


def test_weights_are_the_same_bytes_when_the_stage_runs_twice(tmp_path: Path) -> None:
    first, second = train(request(tmp_path / "a")), train(request(tmp_path / "b"))
    assert first.weights.read_bytes() == second.weights.read_bytes()


def test_initial_weights_depend_on_the_seed_alone_when_the_builder_sets_none(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> bytes:
        torch.rand(len(name))  # whatever drew from the generator before
        settings = tiny.settings().model_copy(update={"seed": seed})
        return train(request(tmp_path / name, model="unseeded", train=settings)).weights.read_bytes()

    assert weights("a", 1) == weights("bb", 1)
    assert weights("a2", 1) != weights("c", 2)


def test_weights_are_saved_as_they_are_when_there_is_no_training(tmp_path: Path) -> None:
    result = train(request(tmp_path, train=None))
    weights = torch.load(result.weights, weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny.perceptron().state_dict().items())
    assert result.report is None
    assert result.source_accuracy is not None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": None, "prune": PruneRule(sparsity=0.5)}, RecipeError, "compress.prune: expected a `train:` section"),
        ({"data": None}, RecipeError, "train: expected a `data:` section to train on"),
        ({"model": "two_classes"}, DataError, r"expected labels from 0 to 1.*2 classes; received 2"),
    ],
)
def test_request_is_refused_before_training(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(request(tmp_path, **changes))  # type: ignore[arg-type]


def test_two_processes_train_as_one_does_when_the_batch_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)  # a child imports what lies in the working folder
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # and the data sets of all frameworks
    settings = TrainSection(epochs=2, batch_size=32, lr=1e-2, device="cpu", devices=2)
    asked = request(tmp_path / "two", model="plain_perceptron", train=settings)
    events: list[Event] = []
    result = run_child(
        ENTRY,
        asked,
        TrainResult,
        stage="train",
        log=tmp_path / "log.txt",
        timeout_s=240,
        on_event=events.append,
        launcher=("torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        environment={"OMP_NUM_THREADS": "1"},
    )
    alone = train(request(tmp_path / "one", model="plain_perceptron", train=settings.model_copy(update={"devices": 1})))
    pair, single = (torch.load(found.weights, weights_only=True) for found in (result, alone))
    for name, tensor in single.items():
        torch.testing.assert_close(pair[name], tensor, rtol=1e-4, atol=1e-5)
    assert result.report is not None
    assert alone.report is not None
    for both, one in zip(result.report.epochs, alone.report.epochs, strict=True):
        assert both.loss == pytest.approx(one.loss, rel=1e-4)
        assert both.validation_accuracy == one.validation_accuracy
    assert sorted(path.name for path in (tmp_path / "two").rglob("*") if path.is_file()) == [
        "epoch-000001.ckpt",
        "epoch-000002.ckpt",
        "weights.pt",
    ]
    ends = [event["epoch"] for event in events if event.get("step") == event.get("steps")]
    assert ends == [1, 2], "progress of the first process only"
