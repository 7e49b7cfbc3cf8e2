"""How TensorFlow Model Optimization quantizes each layer, keeping zeros and shared values where there are any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgekit.frameworks.keras.optimization import (
    NoOpActivation,
    QuantizeScheme,
    cluster_preserve,
    default_8bit_quantize_layout_transform,
    default_8bit_quantize_registry,
    default_8bit_transforms,
    model_transformer,
    prune_preserve,
    serialize_activation,
)

__all__ = ["PreservingScheme"]

PRESERVED_TYPES = ("Conv2D", "Dense")
"""Layers whose zeros and shared values the library knows how to keep."""


class PreservingScheme(QuantizeScheme):
    """The default 8-bit scheme, with a weight quantizer of its own for each pruned or clustered layer.

    The library's schemes for pruned (PQAT), clustered (CQAT) and both (PCQAT) models choose one quantizer for the whole
    model and share it between layers; one layer without a zero then ends the keeping of zeros in all that follow.

    Args:
        sparse: Names of the layers whose zeros must stay.
        clustered: Names of the layers whose values must stay shared.
        per_channel: Whether convolutions have a scale for each output channel.
    """

    def __init__(
        self, *, sparse: Collection[str] = (), clustered: Collection[str] = (), per_channel: bool = True
    ) -> None:
        self._sparse = frozenset(sparse)
        self._clustered = frozenset(clustered)
        self._per_channel = per_channel

    def get_layout_transformer(self) -> Any:
        """Return the rewrites after which what will be fused on the device is quantized as one."""
        return _Layout()

    def get_quantize_registry(self) -> Any:
        """Return what knows the quantizers of a layer."""
        return _Registry(self._sparse, self._clustered, per_channel=self._per_channel)


class _Layout(default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform):
    """The default rewrites, with those for a ReLU behind a layer with weights put right."""

    def apply(self, model: Any, layer_quantize_map: Any) -> Any:
        made = [transform() for transform in _TRANSFORMS]
        transformer = model_transformer.ModelTransformer(model, made, set(layer_quantize_map), layer_quantize_map)
        return transformer.transform()


class _WeightsBeforeReLU(default_8bit_transforms.LayerReLUQuantize):
    """Leaves out the quantization between a layer and its ReLU.

    The library's own rewrite leaves the quantization of the layer's weights out with it: they would train without, and
    zeros and shared values would be lost.
    """

    def pattern(self) -> Any:
        return default_8bit_transforms.LayerPattern("ReLU", inputs=[_linear_layer()])

    def replacement(self, match_layer: Any) -> Any:
        layer = match_layer.input_layers[0].layer
        layer["config"]["activation"] = serialize_activation(NoOpActivation(), use_legacy_format=True)
        return match_layer

    def custom_objects(self) -> dict[str, Any]:
        return {"NoOpActivation": NoOpActivation}


class _WeightsBeforeReLUActivation(_WeightsBeforeReLU):
    def pattern(self) -> Any:
        return default_8bit_transforms.LayerPattern(
            "Activation", config={"activation": "relu"}, inputs=[_linear_layer()]
        )


class _AddBeforeReLU(default_8bit_transforms.LayerReLUQuantize):
    def pattern(self) -> Any:
        return default_8bit_transforms.LayerPattern("ReLU", inputs=[default_8bit_transforms.LayerPattern("Add")])


class _AddBeforeReLUActivation(default_8bit_transforms.LayerReLUQuantize):
    def pattern(self) -> Any:
        return default_8bit_transforms.LayerPattern(
            "Activation", config={"activation": "relu"}, inputs=[default_8bit_transforms.LayerPattern("Add")]
        )


def _linear_layer() -> Any:
    return default_8bit_transforms.LayerPattern("Conv2D|DepthwiseConv2D|Dense", config={"activation": "linear"})


_TRANSFORMS = (
    default_8bit_transforms.InputLayerQuantize,
    default_8bit_transforms.SeparableConv1DQuantize,
    default_8bit_transforms.SeparableConvQuantize,
    default_8bit_transforms.Conv2DReshapeBatchNormReLUQuantize,
    default_8bit_transforms.Conv2DReshapeBatchNormActivationQuantize,
    default_8bit_transforms.Conv2DBatchNormReLUQuantize,
    default_8bit_transforms.Conv2DBatchNormActivationQuantize,
    default_8bit_transforms.Conv2DReshapeBatchNormQuantize,
    default_8bit_transforms.Conv2DBatchNormQuantize,
    default_8bit_transforms.ConcatTransform6Inputs,
    default_8bit_transforms.ConcatTransform5Inputs,
    default_8bit_transforms.ConcatTransform4Inputs,
    default_8bit_transforms.ConcatTransform3Inputs,
    default_8bit_transforms.ConcatTransform,
    default_8bit_transforms.DenseBatchNormQuantize,
    default_8bit_transforms.DenseBatchNormReLUQuantize,
    default_8bit_transforms.DenseBatchNormActivationQuantize,
    _WeightsBeforeReLU,
    _WeightsBeforeReLUActivation,
    _AddBeforeReLU,
    _AddBeforeReLUActivation,
)


class _Registry:
    def __init__(self, sparse: frozenset[str], clustered: frozenset[str], *, per_channel: bool) -> None:
        self._sparse = sparse
        self._clustered = clustered
        self._per_channel = per_channel

    def supports(self, layer: Any) -> bool:
        return bool(self._default().supports(layer))

    def get_quantize_config(self, layer: Any) -> Any:
        config = self._default().get_quantize_config(layer)  # of a new registry: its configs are not shared
        kind = type(layer).__name__
        if kind not in PRESERVED_TYPES:
            return config
        if layer.name in self._clustered:
            quantizers = {
                "Conv2D": cluster_preserve.ClusterPreserveDefault8BitConvWeightsQuantizer,
                "Dense": cluster_preserve.ClusterPreserveDefault8BitWeightsQuantizer,
            }
            config.weight_quantizer = quantizers[kind](layer.name in self._sparse)
        elif layer.name in self._sparse:
            config.weight_quantizer = {
                "Conv2D": prune_preserve.PrunePreserveDefault8BitConvWeightsQuantizer,
                "Dense": prune_preserve.PrunePreserveDefault8BitWeightsQuantizer,
            }[kind]()
        return config

    def _default(self) -> Any:
        return default_8bit_quantize_registry.Default8BitQuantizeRegistry(disable_per_axis=not self._per_channel)
