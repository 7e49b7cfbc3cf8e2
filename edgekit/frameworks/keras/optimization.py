"""The parts of TensorFlow Model Optimization that are used here, its unpublished ones included, in one place.

Imported quietly: its import compares versions with a deprecated module.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "distutils Version classes are deprecated", DeprecationWarning)
    import tensorflow_model_optimization as tfmot

    # Zeros that clustering keeps, and quantizers that keep either, have no published name.
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops, quantize_layer, quantizers
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
        cluster_preserve_quantize_registry as cluster_preserve,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
        prune_preserve_quantize_registry as prune_preserve,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs,
        default_8bit_quantize_layout_transform,
        default_8bit_quantize_registry,
        default_8bit_transforms,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import model_transformer
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_aware_activation import NoOpActivation
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_scheme import QuantizeScheme
    from tensorflow_model_optimization.python.core.quantization.keras.utils import serialize_activation

__all__ = [
    "NoOpActivation",
    "QuantizeScheme",
    "cluster_preserve",
    "cluster_weights",
    "default_8bit_quantize_configs",
    "default_8bit_quantize_layout_transform",
    "default_8bit_quantize_registry",
    "default_8bit_transforms",
    "model_transformer",
    "prune_preserve",
    "quant_ops",
    "quantize_layer",
    "quantizers",
    "serialize_activation",
    "tfmot",
]
