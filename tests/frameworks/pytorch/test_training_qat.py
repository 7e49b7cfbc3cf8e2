"""Quantization-aware training in the same loop: autocast, resuming, and pruned weights that stay zero."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from torch import nn
from torch.fx import GraphModule

from edgekit.frameworks.pytorch.checkpoint import Checkpoints
from edgekit.frameworks.pytorch.loop import run_epochs
from edgekit.frameworks.pytorch.observers import fake_quantizers, float_observers
from edgekit.frameworks.pytorch.prune import MaskKeeper, zero_masks
from edgekit.frameworks.pytorch.train import train_module
from edgekit.recipe.schema import PruneRule, QuantizeRule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch's own imports use deprecated parts of Python and torch
    from edgekit.frameworks.pytorch.quantize import convert, prepare

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, on copies

RULE = PruneRule(sparsity=0.5, granularity="2:4", every_steps=2)


def inputs() -> torch.Tensor:
    return torch.from_numpy(tiny.images().train.inputs[0])  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    module = tiny.convolutions()
    train_module(module, tiny.images(), tiny.settings(epochs=4), prune=RULE)
    return module


@pytest.fixture(scope="module")
def recorded(pruned: nn.Module) -> GraphModule:
    return prepare(copy.deepcopy(pruned), (inputs()[:2],), QuantizeRule(precision="int8"), qat=True)


@pytest.fixture
def graph(recorded: GraphModule) -> GraphModule:
    """A prepared graph whose scales have their size."""
    return observed(recorded)


def observed(recorded: GraphModule) -> GraphModule:
    graph = copy.deepcopy(recorded)
    graph(inputs()[:32])
    return graph


def test_pruned_weights_are_zero_integers_when_quantized_after_training(pruned: nn.Module, graph: GraphModule) -> None:
    masks = zero_masks(pruned, RULE)
    assert set(masks) == {"5.weight", "8.weight"}
    before = graph.get_parameter("5.weight").detach().clone()
    run_epochs(graph, tiny.images(), tiny.settings(epochs=2), phase="qat", after_step=MaskKeeper(graph, masks))
    assert not torch.equal(graph.get_parameter("5.weight"), before), "it trained"
    converted = convert(graph)
    integers = [
        buffer for buffer in converted.buffers() if buffer.dtype == torch.int8 and buffer.shape == (16, 16, 1, 1)
    ]
    assert len(integers) == 1
    groups = integers[0].reshape(16, 4, 4)
    assert bool(((groups == 0).sum(dim=2) >= 2).all()), "2:4 holds in the deployed integers"
    assert bool((integers[0][~masks["5.weight"]] == 0).all())


def test_quantized_training_resumes_identical(recorded: GraphModule, tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(step: int, steps: int) -> None:
        if step == 4:
            raise Cut

    settings = tiny.settings(epochs=3, patience=3)
    with pytest.raises(Cut):
        run_epochs(observed(recorded), tiny.images(), settings, checkpoints=Checkpoints(tmp_path), after_step=cut)
    resumed, whole = observed(recorded), observed(recorded)
    started: list[int] = []
    run_epochs(resumed, tiny.images(), settings, checkpoints=Checkpoints(tmp_path), on_epoch_start=started.append)
    run_epochs(whole, tiny.images(), settings)
    assert started == [1, 2]
    assert tiny.same_weights(resumed, whole), "scales and ranges of observers included"


def test_fake_quantizers_see_float32_when_training_in_bf16(graph: GraphModule) -> None:
    """torch's fused kernel takes float32 only; without the hook the first step raises."""
    assert len(fake_quantizers(graph)) >= 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="Float"):
            graph(inputs()[:4])
        with float_observers(graph):
            graph(inputs()[:4])
    metrics = run_epochs(graph, tiny.images(), tiny.settings(epochs=2, precision="bf16"), phase="qat")
    assert metrics[-1].validation_accuracy is not None
    assert metrics[-1].validation_accuracy > 0.5
    assert not any(part._forward_pre_hooks for part in fake_quantizers(graph)), "no hook is left behind"


def test_unmeasured_scales_can_still_grow_when_training_begins(recorded: GraphModule) -> None:
    """A digest taken through numpy would pin the storage of scales that the first batch must resize."""
    graph = copy.deepcopy(recorded)
    run_epochs(graph, tiny.images(), tiny.settings(epochs=1), phase="qat")
    scales = [part.scale for part in fake_quantizers(graph)]
    assert any(scale.numel() == 16 for scale in scales)
