"""Weights that share a few values, in training, behind batch norms, with zeros, and through later training."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from edgekit.errors import RecipeError, ToolError
from edgekit.frameworks.pytorch.capture import record
from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.cluster import Clusterer, _first_values, _settle, clusterable_weights
from edgekit.frameworks.pytorch.folding import fold_batch_norms, freeze_folded
from edgekit.frameworks.pytorch.train import cluster_module, train, train_module
from edgekit.frameworks.requests import TrainRequest
from edgekit.program.rewrites import rewrite
from edgekit.recipe.schema import ClusterRule, DataSection, ModelSection, PruneRule, QuantizeRule

RULE = ClusterRule(clusters=8, epochs=1)


def with_statistics(module: nn.Module) -> nn.Module:
    """As after a long training: no batch norm is near the identity."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2.0, generator=generator)
    return module


def folded_weights(module: nn.Module, sample: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weights as a program holds them, its batch norms folded."""
    return {name: p for name, p in rewrite(record(module, (sample,))).named_parameters() if p.dim() >= 2}


def test_programs_weights_take_few_values_when_the_model_is_pruned_and_clustered() -> None:
    """Without folding batch norms first, the program makes up to 16 values of each shared one."""
    module, data = with_statistics(tiny.convolutions()), tiny.images()
    train_module(module, data, tiny.settings(), prune=PruneRule(sparsity=0.5, every_steps=2, skip=("8",)))
    report = cluster_module(module, data, tiny.settings(), RULE, keep_zeros=True)
    assert report.clusters_by_layer == {"0": 8, "5": 8, "8": 8}
    assert [(metrics.epoch, metrics.phase) for metrics in report.epochs] == [(0, "cluster")]
    assert report.skipped[-1].reason.startswith("depthwise")
    weights = folded_weights(module, torch.zeros(2, 3, 8, 8))
    assert {name: len(weights[name].unique()) for name in ("0.weight", "5.weight", "8.weight")} == {
        "0.weight": 8,
        "5.weight": 8,
        "8.weight": 8,
    }
    assert float((weights["0.weight"] == 0).float().mean()) == 0.5
    assert not (weights["8.weight"] == 0).any()


def test_training_with_shared_weights_wins_back_what_sharing_lost() -> None:
    module, data = tiny.plain_perceptron(), tiny.vectors()
    train_module(module, data, tiny.settings(epochs=10))
    sample, labels = data.train.batch(list(range(len(data.train))))
    inputs, wanted = torch.as_tensor(sample[0]), torch.as_tensor(labels)

    def loss() -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(module(inputs), wanted))

    rule = ClusterRule(clusters=2)
    Clusterer.prepare(module, rule, keep_zeros=False)
    shared = loss()
    cluster_module(module, data, tiny.settings(), ClusterRule(clusters=2, epochs=6, lr=1e-2), keep_zeros=False)
    assert loss() < 0.9 * shared
    assert {len(part.weight.unique()) for part in module if isinstance(part, nn.Linear)} == {2}


def test_weights_are_the_same_bytes_when_clustering_is_resumed(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def run(folder: Path, *, stop: bool) -> nn.Module:
        module, data = tiny.plain_perceptron(), tiny.vectors()
        rule = ClusterRule(clusters=4, epochs=3)
        checkpoints = Checkpoints(folder)
        if stop:
            save = checkpoints.save

            def save_and_stop(epoch: int, *rest: object) -> None:
                save(epoch, *rest)  # type: ignore[arg-type]
                if epoch == 2:
                    raise Stop

            checkpoints.save = save_and_stop  # type: ignore[method-assign]
        cluster_module(module, data, tiny.settings(), rule, keep_zeros=False, checkpoints=checkpoints)
        return module

    whole = run(tmp_path / "whole", stop=False)
    with pytest.raises(Stop):
        run(tmp_path / "cut", stop=True)
    assert tiny.same_weights(whole, run(tmp_path / "cut", stop=False))


def test_stage_clusters_after_pruning(tmp_path: Path) -> None:
    result = train(
        TrainRequest(
            model=ModelSection(source="tiny_training:perceptron"),
            data=DataSection(module="tiny_training:vectors"),
            train=tiny.settings(),
            prune=PruneRule(sparsity=0.5, skip=("4",)),
            cluster=ClusterRule(clusters=4),
            distil=None,
            work_dir=tmp_path / "work",
            output_dir=tmp_path / "out",
        )
    )
    weights = torch.load(result.weights, weights_only=True)
    assert list(weights) == list(tiny.perceptron().state_dict())
    assert len(weights["0.weight"].unique()) == 4
    assert float((weights["0.weight"] == 0).float().mean()) == 0.5
    assert result.report is not None
    assert result.report.clusters_by_layer == {"0": 4, "4": 4}
    assert result.report.sparsity_by_layer == {"0": 0.5}
    assert [(m.epoch, m.phase) for m in result.report.epochs][-2:] == [(2, "train"), (3, "cluster")]


def test_shared_values_survive_quantization_aware_training() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao and ExecuTorch warn about their own use of deprecated parts
        from edgekit.frameworks.pytorch.quantize import convert, prepare
    module, data = tiny.plain_perceptron(), tiny.vectors()
    Clusterer.prepare(module, ClusterRule(clusters=4), keep_zeros=False)
    sample = torch.as_tensor(data.train.batch([0, 1])[0][0])
    prepared = prepare(module, (sample,), QuantizeRule(mode="qat"), qat=True)
    clusterer = Clusterer.keep(prepared, module, ClusterRule(clusters=4))
    before = dict(prepared.named_parameters())["0.weight"].detach().clone()
    prepared.train()
    optimizer = torch.optim.Adam(prepared.parameters(), lr=1e-2)
    for step in range(5):
        inputs, labels = data.train.batch(list(range(step * 16, step * 16 + 16)))
        optimizer.zero_grad()
        functional.cross_entropy(prepared(torch.as_tensor(inputs[0])), torch.as_tensor(labels)).backward()
        optimizer.step()
        clusterer.step(step, 5)
    after = dict(prepared.named_parameters())["0.weight"].detach()
    assert len(after.unique()) == 4
    assert not torch.equal(before.unique(), after.unique())
    integers = convert(prepared)
    held = next(tensor for tensor in integers.state_dict().values() if tensor.shape == (32, 8))
    assert max(len(channel.unique()) for channel in held) <= 4


def test_parameter_that_training_does_not_hold_is_an_error() -> None:
    module = tiny.plain_perceptron()
    Clusterer.prepare(module, RULE, keep_zeros=False)
    with pytest.raises(ToolError, match=r"shared values of '0\.weight': expected .*\[32, 8\]; received none"):
        Clusterer.keep(nn.Identity(), module, RULE)


@pytest.mark.parametrize("init", ["kmeans++", "linear", "density"])
@given(values=st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=60), count=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_settled_values_leave_no_more_error_than_the_first(init: str, values: list[float], count: int) -> None:
    weights = torch.tensor(values)
    first = _first_values(weights, count, init)
    settled = _settle(weights, first)

    def error(of: torch.Tensor) -> float:
        return float((weights[:, None] - of[None]).abs().min(dim=1).values.square().sum())

    assert len(settled) <= count
    assert error(settled) <= error(first) + 1e-5
    if len(weights.unique()) <= count:
        torch.testing.assert_close(settled, weights.unique())


def test_recurrent_weights_are_clustered_in_place() -> None:
    module = nn.LSTM(6, 8)
    Clusterer.prepare(module, ClusterRule(clusters=4), keep_zeros=False)
    assert {len(getattr(module, name).unique()) for name in ("weight_ih_l0", "weight_hh_l0")} == {4}
    first = module(torch.ones(2, 1, 6))[0]
    module.flatten_parameters()
    torch.testing.assert_close(module(torch.ones(2, 1, 6))[0], first)


def test_layers_that_are_left_alone_have_a_reason() -> None:
    module = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 4), nn.Linear(4, 3), nn.Linear(3, 2))
    weights, skipped = clusterable_weights(module, ClusterRule(clusters=8, skip=("2",)))
    assert [weight.label for weight in weights] == ["1"]
    assert {layer.name: layer.reason for layer in skipped} == {
        "0": "a lookup table multiplies nothing",
        "2": "skipped by the rule '2'",
        "3": "6 weights cannot share 8 values",
    }
    with pytest.raises(RecipeError, match=r"compress\.cluster\.skip: the rule 'hed' matches no layer"):
        clusterable_weights(module, ClusterRule(skip=("hed",)))
    with pytest.raises(RecipeError, match="at least 3 for a pruned model"):
        Clusterer.prepare(module, ClusterRule(clusters=2), keep_zeros=True)


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-5)
        self.wide, self.plain = nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, affine=False)
        self.behind_relu = nn.BatchNorm2d(6)
        self.head, self.last = nn.Linear(6, 3), nn.BatchNorm1d(3, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.plain(self.wide(self.norm(self.conv(x))))
        return self.last(self.head(self.behind_relu(x.relu()).mean((2, 3))))


def test_folded_batch_norm_multiplies_by_exactly_one_and_changes_nothing() -> None:
    torch.manual_seed(0)
    module = with_statistics(Norms()).eval()
    sample = torch.randn(4, 3, 8, 8)
    expected = module(sample)
    folded = fold_batch_norms(module, (sample,))
    torch.testing.assert_close(module(sample), expected, rtol=1e-4, atol=1e-4)
    assert folded == ("norm", "plain", "last")
    weights = folded_weights(module, sample)
    for name in ("conv.weight", "wide.weight", "head.weight"):
        assert torch.equal(weights[name], dict(module.named_parameters())[name])
    module.train()
    freeze_folded(module, folded)
    assert [module.get_submodule(name).training for name in (*folded, "behind_relu")] == [False, False, False, True]
