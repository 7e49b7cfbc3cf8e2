"""Quantize a module, after training or with more training: ``prepare`` → calibrate or train → ``convert``.

The life cycle, for people with their own training loop::

    prepared = prepare(module, example_inputs, QuantizeRule(precision="int8"), qat=True)
    for inputs, labels in batches:              # your loop; or, after training, calibrate(prepared, batches)
        loss = criterion(prepared(*inputs), labels)
        ...
    freeze_observers(prepared)                  # for the last share of the epochs
    quantized = convert(prepared)
    program = export_program(quantized, example_inputs)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantizeBase, ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgekit.errors import DataError, UnsupportedError
from edgekit.frameworks.pytorch.capture import record
from edgekit.frameworks.pytorch.describe import source_layers
from edgekit.frameworks.pytorch.layers import layers_above, skipped_layers
from edgekit.frameworks.pytorch.quantizer import ProgramQuantizer
from edgekit.program.biases import snap_biases
from edgekit.program.graph import fill_shapes, module_path, tensor_of, tidy
from edgekit.program.quiet import quiet
from edgekit.program.rewrites import expand, replace_average_pools, rewrite
from edgekit.recipe.layers import select_layers
from edgekit.recipe.schema import QuantizeRule
from edgekit.records import SkippedLayer

_NOISY = "torchao"
"""PT2E warns about its own use of deprecated parts of PyTorch, and of observers that it calls itself."""

_KEY = "edgekit_quantization"
"""Where a graph keeps, in its ``meta``, what ``convert`` needs to know."""


def prepare(
    module: nn.Module, example_inputs: Sequence[Tensor], rule: QuantizeRule, *, qat: bool = False
) -> GraphModule:
    """Record a module, fold its batch norms, and insert observers or fake quantization.

    Args:
        module: A trained float module; it is not changed. A graph that ``capture`` recorded is taken as it is.
        example_inputs: One batch, as the module takes it.
        rule: Precision, observers, and the layers to leave alone.
        qat: Insert fake quantization that trains, instead of observers.

    Returns:
        A graph that is called as the module is, whose parameters have the module's names and whose ``train`` and
        ``eval`` can be called. Batch norms are folded before training with fake quantization: what trains is then what
        is deployed, and a step costs less.

    Raises:
        ModelError: The module cannot be recorded.
        RecipeError: A skip rule matches no layer.
        UnsupportedError: The precision is not one that programs hold.
    """
    if rule.precision == "int16x8":
        raise UnsupportedError(
            "a program of precision int16x8",
            reason="integer activations of 16 bits exist in TFLite alone",
            instead="export tflite at int16x8, which is lowered from the fp32 program",
        )
    graph = record(module, example_inputs)
    picked = select_layers(source_layers(module), rule.skip, "compress.quantize.skip")
    rewrite(graph)
    if rule.precision == "int8":
        replace_average_pools(graph)
    quantizer = ProgramQuantizer(rule, qat=qat, keep=lambda node: not layers_above(node) & picked.keys())
    with quiet(_NOISY):
        # prepare_qat_pt2e differs in the handling of batch norms only, and searches for them for many seconds.
        prepared = prepare_pt2e(graph, quantizer)
    plain = _switchable(prepared)
    plain.meta[_KEY] = {"rule": rule, "picked": picked}
    return plain


def convert(prepared: GraphModule) -> GraphModule:
    """Turn observers and fake quantization into quantize and dequantize operations with fixed scales.

    Weights are folded to integers, biases are moved onto the grid of their layer.

    Args:
        prepared: From :func:`prepare`, calibrated or trained; it is used up.

    Returns:
        A graph that is called as the module was. :func:`skipped` says what it left in floating point.

    Raises:
        DataError: Observers saw nothing, or NaN: there is no range to fix scales from.
    """
    facts = prepared.meta[_KEY]
    _refresh_weight_scales(prepared)
    _check_observed(prepared)
    prepared.cpu()
    with quiet(_NOISY):
        converted = convert_pt2e(prepared)
    expand(fill_shapes(snap_biases(tidy(converted))))
    plain = _switchable(converted)
    plain.meta[_KEY] = facts
    return plain


def skipped(converted: GraphModule) -> tuple[SkippedLayer, ...]:
    """Name the layers with weights that a converted graph left in floating point, and why."""
    facts: Mapping[str, Any] = converted.meta[_KEY]
    return skipped_layers(converted, facts["rule"], facts["picked"])


def calibrate(prepared: GraphModule, batches: Iterable[Sequence[Tensor]]) -> None:
    """Show inputs to the observers.

    Args:
        prepared: From :func:`prepare`.
        batches: Inputs as the module takes them.
    """
    prepared.eval()
    with torch.no_grad():
        for inputs in batches:
            prepared(*inputs)


def freeze_observers(prepared: GraphModule) -> None:
    """Fix the scales of activations; those of weights go on following the weights.

    In the last share of quantization-aware training scales that still move keep the weights from settling.
    """
    for observer in _observers(prepared, weights=False):
        observer.disable_observer()


def watch(prepared: GraphModule, watching: bool) -> None:
    """Let the observers of activations see what passes (training data), or not (validation data)."""
    for observer in _observers(prepared, weights=False):
        if watching:
            observer.enable_observer()
        else:
            observer.disable_observer()


def _observers(prepared: GraphModule, *, weights: bool) -> Iterator[Any]:
    """Walk the fake-quantization modules of weights, or those of activations."""
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        found = prepared.get_submodule(str(node.target))
        if isinstance(found, FakeQuantizeBase) and _is_constant(node.args[0]) is weights:
            yield found


def _is_constant(node: object) -> bool:
    return isinstance(node, Node) and node.op == "get_attr"


def _refresh_weight_scales(prepared: GraphModule) -> None:
    """Observe the weights once more: after the last optimizer step nobody has."""
    with torch.no_grad():
        for node in prepared.graph.nodes:
            if node.op == "call_module" and _is_constant(node.args[0]):
                found = prepared.get_submodule(str(node.target))
                if isinstance(found, FakeQuantizeBase | ObserverBase):
                    found(tensor_of(prepared, node.args[0]))


def _check_observed(prepared: GraphModule) -> None:
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        found = prepared.get_submodule(str(node.target))
        observer = getattr(found, "activation_post_process", found)
        low, high = getattr(observer, "min_val", None), getattr(observer, "max_val", None)
        if low is None or high is None or getattr(observer, "is_dynamic", False):
            continue
        place = module_path(node.args[0]) or str(node.args[0])
        if low.numel() == 0 or (torch.isinf(low).any() and not _is_constant(node.args[0])):
            raise DataError(
                f"the observer behind {place!r} saw no finite range: expected calibration data (or training steps) "
                "before convert. Call calibrate(prepared, batches) with real samples"
            )
        if torch.isnan(low).any() or torch.isnan(high).any():
            raise DataError(
                f"the values behind {place!r} became NaN on the calibration samples: expected finite numbers. "
                "Check the samples and the weights"
            )


def _switchable(graph: GraphModule) -> GraphModule:
    """Return the same graph as a plain GraphModule, whose ``train`` and ``eval`` do not raise.

    torchao forbids both because a recorded batch norm or dropout cannot be switched; there is none left to switch.
    """
    plain = GraphModule(graph, graph.graph)
    plain.meta.update(graph.meta)
    return plain.eval()
