"""Quantization-aware training, by TensorFlow Model Optimization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tf_keras

from edgekit.data.dataset import Dataset
from edgekit.errors import UnsupportedError
from edgekit.frameworks.keras.batches import Batches
from edgekit.frameworks.keras.checkpoint import Checkpoints
from edgekit.frameworks.keras.cluster import clusterable_kernels
from edgekit.frameworks.keras.distil import load_distiller
from edgekit.frameworks.keras.fit import Hooks, fit_epochs
from edgekit.frameworks.keras.folding import freeze_folded
from edgekit.frameworks.keras.kernels import graph_layers, kernels_of, picked_layers
from edgekit.frameworks.keras.library import is_model
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.optimization import default_8bit_quantize_configs, default_8bit_quantize_registry, tfmot
from edgekit.frameworks.keras.prune import prunable_kernels
from edgekit.frameworks.keras.ranges import ActivationRanges, refresh_weight_ranges
from edgekit.frameworks.keras.rebuild import as_tf_keras
from edgekit.frameworks.keras.runner import input_specs
from edgekit.frameworks.keras.scheme import PreservingScheme
from edgekit.frameworks.keras.strategy import clone, open_strategy, place
from edgekit.frameworks.requests import ProgramRequest
from edgekit.frameworks.training import QAT_LEARNING_RATE_SHARE
from edgekit.recipe.schema import ClusterRule, PruneRule, QuantizeRule, TrainSection
from edgekit.records import SkippedLayer

__all__ = ["quantize_aware", "refuse_unsupported_layers", "train_quantized", "unsupported_layers"]

SKIP_PLACE = "compress.quantize.skip"
FREEZE_SHARE = 2 / 3
"""Share of the epochs after which activation ranges are fixed (Krishnamoorthi 2018, section 4.1, freezes late too)."""
FIRST_RANGE_SAMPLES = 128

_FUSED_ACTIVATIONS = frozenset({"linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh"})
_ACTIVATION_LAYERS = frozenset({*_FUSED_ACTIVATIONS, "relu6"})
_NORMALIZED_TYPES = frozenset({"Conv2D", "DepthwiseConv2D", "Dense", "SeparableConv1D", "SeparableConv2D"})
_MOVING_TYPES = frozenset({"Flatten", "Reshape", "Permute", "Dropout", "ZeroPadding2D", "MaxPooling2D", "Cropping2D"})
_DECOMPOSED_TYPES = frozenset({"SeparableConv1D", "SeparableConv2D"})


def unsupported_layers(model: Any) -> tuple[SkippedLayer, ...]:
    """Name the layers that quantization-aware training cannot handle, without training anything.

    Args:
        model: A keras or tf_keras model.

    Raises:
        ModelError: A Keras 3 model that cannot be rebuilt as tf_keras.
    """
    reasons = _reasons(as_tf_keras(model))
    return tuple(SkippedLayer(name=name, type=kind, reason=reason) for name, (kind, reason) in reasons.items())


def refuse_unsupported_layers(model: Any, rule: QuantizeRule) -> None:
    """Refuse, before any training, a model with layers that would stay float, where the recipe says so.

    Raises:
        UnsupportedError: ``unsupported: refuse``, and there are such layers that no skip rule names.
    """
    if rule.mode != "qat" or rule.unsupported != "refuse":
        return
    picked = picked_layers(model, rule.skip, SKIP_PLACE)
    found = [layer for layer in unsupported_layers(model) if layer.name not in picked]
    if found:
        names = ", ".join(f"{layer.name} ({layer.type})" for layer in found)
        raise UnsupportedError(
            f"quantization-aware training of {names}",
            reason=found[0].reason,
            instead="compress.quantize.unsupported: float, which leaves them in float, or mode: ptq",
        )


def _reasons(model: Any) -> dict[str, tuple[str, str]]:
    """Return the layers of a tf_keras model that cannot be quantized -> their type and the reason."""
    registry = default_8bit_quantize_registry.Default8BitQuantizeRegistry()
    found: dict[str, tuple[str, str]] = {}
    for layer in model.layers:
        if is_model(layer):
            reason = "a model within the model, of which TensorFlow Model Optimization quantizes the outer layers only"
            found[layer.name] = (type(layer).__name__, reason)
            found.update({path: (type(part).__name__, reason) for path, part in graph_layers(layer, layer.name)})
        elif reason := _reason(layer, registry):
            found[layer.name] = (type(layer).__name__, reason)
    return found


def _reason(layer: Any, registry: Any) -> str:
    kind = type(layer).__name__
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if kind == "InputLayer":
        return ""
    if kind == "BatchNormalization":
        return "" if _normalizes(layer) else "a batch norm is quantized only behind the layer that it is folded into"
    if kind not in _DECOMPOSED_TYPES and not registry.supports(layer):
        return f"TensorFlow Model Optimization has no quantization for {kind} layers"
    allowed = _ACTIVATION_LAYERS if kind == "Activation" else _FUSED_ACTIVATIONS
    if activation not in allowed:
        return f"TensorFlow Model Optimization has no quantization for the activation {activation!r} of {kind} layers"
    return ""


def _normalizes(norm: Any) -> bool:
    """Say whether a batch norm follows a layer that it will be folded into."""
    if len(norm._inbound_nodes) != 1:
        return False
    layer = norm.input._keras_history.layer
    activation = getattr(getattr(layer, "activation", None), "__name__", "")
    return type(layer).__name__ in _NORMALIZED_TYPES and activation == "linear" and len(layer._outbound_nodes) == 1


def quantize_aware(
    model: Any, rule: QuantizeRule, *, prune: PruneRule | None = None, cluster: ClusterRule | None = None
) -> tuple[Any, tuple[SkippedLayer, ...]]:
    """Return a model with fake quantization, ready to be trained; zeros and shared values will stay.

    Args:
        model: A trained tf_keras model; it is not changed.
        rule: Layers to leave alone, and what to do with those that cannot be quantized.
        prune: The pruning of the model, whose zeros must stay.
        cluster: The clustering of the model, whose values must stay shared.

    Returns:
        The model, and the layers left in float with the reason.

    Raises:
        UnsupportedError: Layers that cannot be quantized are to be refused, or no layer is left to quantize.
        RecipeError: A skip rule matches no layer.
    """
    refuse_unsupported_layers(model, rule)
    copy = clone(model)
    freeze_folded(copy)
    picked = picked_layers(copy, rule.skip, SKIP_PLACE)
    unsupported = _reasons(copy)
    float_layers = _with_orphaned_norms(copy, {*picked, *unsupported})
    annotated = _annotated(copy, float_layers)
    scheme = PreservingScheme(
        sparse=() if prune is None else _with_zeros(copy, prune),
        clustered=() if cluster is None else clusterable_kernels(copy, cluster)[0],
        per_channel=rule.per_channel,
    )
    try:
        with tfmot.quantization.keras.quantize_scope():
            quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UnsupportedError(
            f"quantization-aware training of {model.name!r}",
            reason=f"TensorFlow Model Optimization cannot quantize this graph ({error})",
            instead="mode: ptq",
        ) from error
    freeze_folded(quantized)
    return quantized, _skipped(copy, picked, unsupported)


def _with_orphaned_norms(model: Any, float_layers: set[str]) -> set[str]:
    """Add batch norms whose layer stays float: quantized alone, they are not folded into anything."""
    orphaned = {
        layer.name
        for layer in model.layers
        if type(layer).__name__ == "BatchNormalization"
        and layer.name not in float_layers
        and layer.input._keras_history.layer.name in float_layers
    }
    return float_layers | orphaned


def _annotated(model: Any, float_layers: set[str]) -> Any:
    """Mark what is to be quantized; float layers before a quantized one get their output quantized, as its input."""
    quantized = [layer for layer in model.layers if layer.name not in float_layers and not is_model(layer)]
    quantized = [layer for layer in quantized if type(layer).__name__ != "InputLayer"]
    if not quantized:
        raise UnsupportedError(
            f"quantization-aware training of {model.name!r}",
            reason="no layer is left to quantize: each is skipped, or unknown to TensorFlow Model Optimization",
            instead="mode: ptq, or fewer skip rules",
        )
    feeding = _producers(quantized)
    unwrapped = {
        layer.name for layer in model.layers if layer.name in float_layers and not _output_can_be_quantized(layer)
    }
    marked = {id(layer) for layer in quantized}
    entered = {layer.name for layer in quantized if _passes_on(layer) and _producers([layer]) & unwrapped}

    def mark(layer: Any) -> Any:
        if id(layer) in marked and layer.name not in entered:
            return tfmot.quantization.keras.quantize_annotate_layer(layer)
        if layer.name in entered or (layer.name in feeding and _output_can_be_quantized(layer)):
            config = default_8bit_quantize_configs.Default8BitOutputQuantizeConfig()
            return tfmot.quantization.keras.quantize_annotate_layer(layer, quantize_config=config)
        return layer

    return tf_keras.models.clone_model(model, clone_function=mark)


def _producers(layers: list[Any]) -> set[str]:
    found: set[str] = set()
    for layer in layers:
        tensors = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        found.update(tensor._keras_history.layer.name for tensor in tensors)
    return found


def _passes_on(layer: Any) -> bool:
    """Say whether a layer only moves values, whose quantization it takes from what comes before it."""
    return type(layer).__name__ in _MOVING_TYPES


def _output_can_be_quantized(layer: Any) -> bool:
    """Say whether a wrapper can stand around a layer: one of tf_keras's own, with one float input and output."""
    single = not isinstance(layer.input, list | tuple | dict) and not isinstance(layer.output, list | tuple | dict)
    own = type(layer).__module__.startswith("tf_keras.") and not is_model(layer)
    return single and own and type(layer).__name__ != "InputLayer"


def _with_zeros(model: Any, prune: PruneRule) -> set[str]:
    kernels, _ = prunable_kernels(model, prune)
    return {path for path, found in kernels.items() if any((k.variable.numpy() == 0).any() for k in found)}


def _skipped(
    model: Any, picked: Mapping[str, str], unsupported: Mapping[str, tuple[str, str]]
) -> tuple[SkippedLayer, ...]:
    """Name what stays float: what rules skip, where it has weights, and what cannot be quantized."""
    found = []
    for path, layer in graph_layers(model):
        if path in picked and (kernels_of(path, layer) or layer.weights):
            reason = f"skipped by the rule {picked[path]!r}"
            found.append(SkippedLayer(name=path, type=type(layer).__name__, reason=reason))
        elif path in unsupported:
            kind, reason = unsupported[path]
            found.append(SkippedLayer(name=path, type=kind, reason=reason))
    return tuple(found)


def train_quantized(request: ProgramRequest, source: Source, dataset: Dataset) -> tuple[Any, tuple[SkippedLayer, ...]]:
    """Train a model with fake quantization, starting from its trained weights.

    One device and float32, whatever the float training had: the fake quantization knows no 16-bit floats.

    Args:
        request: ``quantize`` says how long, at which rate and what to skip; ``train`` the rest.
        source: With the trained weights.
        dataset: As for float training.

    Returns:
        The model with its learned ranges, as the converter takes it, and the layers left in float.

    Raises:
        UnsupportedError: See :func:`quantize_aware`; or the source is no Keras model.
        RecipeError: A skip rule matches no layer.
        ToolError: The loss became NaN or infinite.
    """
    rule, settings = request.quantize or QuantizeRule(mode="qat"), request.train or TrainSection()
    if source.library not in ("keras", "tf_keras"):
        raise UnsupportedError(
            f"quantization-aware training of a {source.library} source",
            reason="it holds a fixed graph, whose weights cannot be trained",
            instead="mode: ptq",
        )
    model, skipped = quantize_aware(as_tf_keras(source.model), rule, prune=request.prune, cluster=request.cluster)
    plain = settings.model_copy(update={"devices": 1, "precision": "fp32", "patience": rule.epochs})
    placement = place(plain)
    specs = input_specs(source)
    freeze_from = max(1, math.ceil(rule.epochs * FREEZE_SHARE))
    ranges = ActivationRanges(model)
    ranges.start_from(Batches(dataset.train, specs, layout=dataset.layout).first(FIRST_RANGE_SAMPLES)[0])
    fit_epochs(
        model,
        dataset,
        plain,
        specs=specs,
        placement=placement,
        strategy=open_strategy(placement),
        epochs=rule.epochs,
        phase="qat",
        lr=rule.lr or settings.lr * QAT_LEARNING_RATE_SHARE,
        hooks=Hooks(on_epoch_start=lambda epoch: ranges.move(epoch < freeze_from)),
        distiller=None if request.distil is None else load_distiller(request.distil),
        checkpoints=Checkpoints(request.work_dir / f"checkpoints-{request.precision}"),
        best_from=min(freeze_from, rule.epochs - 1),
    )
    ranges.release()
    refresh_weight_ranges(model)
    return model, skipped
