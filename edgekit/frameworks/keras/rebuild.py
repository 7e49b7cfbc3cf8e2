"""A Keras 3 model as the same tf_keras model: TensorFlow Model Optimization works on tf_keras only.

The graph is walked call by call, each layer is built anew from its configuration, the weights are carried over, and
the outputs of both are compared: a difference between the libraries is found here, not in an artifact.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from edgekit.data.dataset import Array
from edgekit.errors import ModelError
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.layers import walk_layers
from edgekit.frameworks.keras.signature import flat_outputs, input_name, output_names, pack_inputs
from edgekit.frameworks.keras.weights_file import settle_weights, variables_inside

__all__ = ["as_tf_keras"]

TOLERANCE = 1e-5
"""Largest difference of an output of the two models, relative to the output's largest value (or 1)."""

MIXED_TOLERANCE = 2e-2
"""The same where layers compute in 16 bits, and the libraries round at other places."""

_WRAPPED = ("layer", "backward_layer", "cell")
"""Options that hold a layer."""

_ACTIVATION_OPTIONS = ("activation", "recurrent_activation")
_SAME_ACTIVATIONS = frozenset(
    (
        "linear", "relu", "softmax", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign", "exponential", "gelu",
        "mish",
    )
)  # fmt: skip
"""Activations that mean the same in both. ``hard_sigmoid`` does not: another slope, and so another function."""
_RENAMED_ACTIVATIONS = {"silu": "swish", "swish": "swish", "log_softmax": "log_softmax"}
_RENAMED_OPTIONS = {("LeakyReLU", "negative_slope"): "alpha"}
_RECURRENT_OPTIONS = {"zero_output_for_mask": False}
"""What tf_keras takes among its keyword arguments, where no signature shows it."""
_IRRELEVANT_OPTIONS = frozenset(("autocast", "use_cudnn", "seed"))
"""Options of Keras 3 that change no result of inference."""

_OPERATIONS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
"""Operations on two tensors of one rank that are layers in tf_keras."""
_WITH_NUMBER: dict[str, Callable[[float], tuple[float, float]]] = {
    "Add": lambda number: (1.0, number),
    "Subtract": lambda number: (1.0, -number),
    "Multiply": lambda number: (number, 0.0),
    "Divide": lambda number: (1.0 / number, 0.0),
    "TrueDivide": lambda number: (1.0 / number, 0.0),
}
"""Operations on a tensor and a number: scale and offset of the ``Rescaling`` layer that does the same."""

Apply = Callable[..., Any]


def as_tf_keras(model: Any) -> Any:
    """Return a tf_keras model with the same architecture, layer names and weights.

    Args:
        model: A keras or tf_keras model; a tf_keras model is returned as it is.

    Raises:
        ModelError: Names the layer that tf_keras does not have, or whose option it does not know, or says by how much
            the outputs of the two models differ.
    """
    if isinstance(model, tf_keras.Model):
        return model
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"expected a keras or tf_keras model; received {type(model).__name__}. A SavedModel or a .tflite file has "
            "no layers that could be rebuilt: give the Keras model that it was made from"
        )
    rebuilding = _Rebuilding()
    rebuilt = rebuilding.model(model)
    rebuilding.carry_weights()
    settle_weights(rebuilt)
    _compare(model, rebuilt)
    return rebuilt


class _Rebuilding:
    """One walk through a model and the models inside it."""

    def __init__(self) -> None:
        self._made: dict[int, Apply] = {}
        self._pairs: list[tuple[str, Any, Any]] = []

    def model(self, model: Any) -> Any:
        """Rebuild a functional or Sequential model as a functional one."""
        functional = getattr(model, "_functional", None) or model
        if not hasattr(functional, "_nodes_by_depth"):
            raise ModelError(
                f"the model {model.name!r} ({type(model).__name__}) is a subclass whose code only its class knows; "
                "quantization-aware training, pruning and clustering work on tf_keras models. Build it as a functional "
                "model with keras.Input, or write it with tf_keras"
            )
        tensors = {id(tensor): _input(tensor) for tensor in functional.inputs}
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if not node.is_input and id(node.outputs[0]) not in tensors:
                    self._call(node, tensors)
        inputs, outputs = (_mapped(part, tensors) for part in (functional.input, functional.output))
        return tf_keras.Model(inputs, outputs, name=model.name)

    def carry_weights(self) -> None:
        """Copy the weights of every layer that was rebuilt."""
        for name, original, rebuilt in self._pairs:
            old, new = list(variables_inside(original)), list(variables_inside(rebuilt))
            shapes = [[tuple(variable.shape) for variable in part] for part in (old, new)]
            if shapes[0] != shapes[1]:
                raise ModelError(
                    f"layer {name!r} ({type(original).__name__}) cannot be rebuilt in tf_keras: its weights have the "
                    f"shapes {shapes[0]} in Keras 3 and {shapes[1]} in tf_keras. Write the model with tf_keras"
                )
            for variable, value in zip(new, old, strict=True):
                variable.assign(value.numpy())

    def _call(self, node: Any, tensors: dict[int, Any]) -> None:
        operation = node.operation
        if id(operation) not in self._made:
            self._made[id(operation)] = self._operation(operation)
        args = _mapped(node.arguments.args, tensors)
        kwargs = {key: value for key, value in _mapped(node.arguments.kwargs, tensors).items() if value is not None}
        try:
            returned = self._made[id(operation)](*args, **kwargs)
        except REFUSALS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise _refusal(operation, f"tf_keras cannot call it the same way: {reason}") from error
        for original, tensor in zip(node.outputs, tf.nest.flatten(returned), strict=True):
            tensors[id(original)] = tensor

    def _operation(self, operation: Any) -> Apply:
        if isinstance(operation, keras.Model):
            return self.model(operation)  # type: ignore[no-any-return]
        if isinstance(operation, keras.layers.Layer):
            return self._layer(operation)
        if type(operation).__name__ in (*_OPERATIONS, *_WITH_NUMBER):
            return lambda *operands: _arithmetic(operation, operands)
        raise _refusal(operation, "it is an operation of Keras 3 (keras.ops) that is no layer of tf_keras")

    def _layer(self, layer: Any) -> Apply:
        after = _special_activation(layer)
        if type(layer).__name__ == "Activation" and after is not None:
            return after
        rebuilt = _rebuilt_layer(layer, plain=after is not None)
        self._pairs.append((layer.name, layer, rebuilt))
        return rebuilt if after is None else lambda *args, **kwargs: after(rebuilt(*args, **kwargs))


def _input(tensor: Any) -> Any:
    return tf_keras.Input(tensor.shape[1:], batch_size=tensor.shape[0], dtype=tensor.dtype, name=input_name(tensor))


def _mapped(structure: Any, tensors: Mapping[int, Any]) -> Any:
    def replace(value: Any) -> Any:
        return tensors[id(value)] if isinstance(value, keras.KerasTensor) else value

    return keras.tree.map_structure(replace, structure)


def _arithmetic(operation: Any, operands: tuple[Any, ...]) -> Any:
    """Rebuild what ``x + y`` or ``x * 0.5`` recorded between symbolic tensors."""
    kind = type(operation).__name__
    numbers = [part for part in operands if isinstance(part, int | float)]
    tensors = [part for part in operands if not isinstance(part, int | float) and hasattr(part, "_keras_history")]
    if len(tensors) == 2 and kind in _OPERATIONS and len(tensors[0].shape) == len(tensors[1].shape):
        return getattr(tf_keras.layers, kind)(name=operation.name)(tensors)
    in_order = kind in ("Add", "Multiply") or not isinstance(operands[0], int | float)
    if len(tensors) == 1 and len(numbers) == 1 and numbers[0] and kind in _WITH_NUMBER and in_order:
        scale, offset = _WITH_NUMBER[kind](float(numbers[0]))
        return tf_keras.layers.Rescaling(scale, offset=offset, name=operation.name)(tensors[0])
    raise _refusal(operation, "it joins tensors of different ranks, or a tensor with an array")


def _rebuilt_layer(layer: Any, *, plain: bool = False) -> Any:
    """Build a tf_keras layer from a Keras 3 layer's configuration; ``plain`` leaves its activation out."""
    kind = type(layer).__name__
    target = getattr(tf_keras.layers, kind, None)
    own = type(layer).__module__.startswith("keras.src.layers.")
    if kind == "Lambda" or not own:
        raise _refusal(layer, "it runs code of its own, written for Keras 3")
    if target is None:
        raise _refusal(layer, "tf_keras has no such layer")
    options = _options(layer, target)
    if plain:
        options["activation"] = "linear"
    try:
        return target(**options)
    except REFUSALS as error:
        raise _refusal(layer, f"tf_keras refuses its options: {error}") from error


def _options(layer: Any, target: Any) -> dict[str, Any]:
    known = {**_parameters(target), **(_RECURRENT_OPTIONS if issubclass(target, tf_keras.layers.RNN) else {})}
    defaults = _parameters(type(layer))
    options: dict[str, Any] = {}
    for key, value in layer.get_config().items():
        name = _RENAMED_OPTIONS.get((type(layer).__name__, key), key)
        if key == "dtype":
            options["dtype"] = layer.dtype_policy.name
        elif key in _WRAPPED:
            part = getattr(layer, "forward_layer" if key == "layer" and hasattr(layer, "forward_layer") else key, None)
            options |= {} if part is None else {key: _rebuilt_layer(part)}
        elif key in _ACTIVATION_OPTIONS and name in known:
            options[key] = _activation(layer, key, value)
        elif name in known:
            options |= {} if key.endswith("_initializer") else {name: value}
        elif not _changes_nothing(key, value, defaults):
            raise _refusal(layer, f"tf_keras does not know its option {key}={value!r}")
    return options


def _parameters(kind: Any) -> dict[str, Any]:
    """Return the options of a class and its bases, with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(base.__init__).parameters.values()
            found |= {part.name: part.default for part in parameters if part.kind not in (2, 4)}  # *args, **kwargs
    return found


def _changes_nothing(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    if key in _IRRELEVANT_OPTIONS or value is None or value is False:
        return True
    if key == "data_format":
        return bool(value == "channels_last")
    return key in defaults and bool(defaults[key] == value)


def _activation(layer: Any, key: str, value: Any) -> Any:
    if value is None or value in _SAME_ACTIVATIONS:
        return value
    if isinstance(value, str) and value in _RENAMED_ACTIVATIONS:
        return _RENAMED_ACTIVATIONS[value]
    if key == "activation" and isinstance(value, str) and value in _SPECIAL_ACTIVATIONS:
        return "linear" if not isinstance(layer, keras.layers.RNN) else _refuse_activation(layer, value)
    return _refuse_activation(layer, value)


def _refuse_activation(layer: Any, value: Any) -> Any:
    raise _refusal(layer, f"tf_keras has no activation {value!r} of the same meaning")


def _special_activation(layer: Any) -> Apply | None:
    """Return the layers that stand for an activation which tf_keras has as layers only, or not at all."""
    value = layer.get_config().get("activation")
    if not isinstance(value, str) or value not in _SPECIAL_ACTIVATIONS or isinstance(layer, keras.layers.RNN):
        return None
    alone = type(layer).__name__ == "Activation"
    return _SPECIAL_ACTIVATIONS[value](layer.name if alone else f"{layer.name}_{value}")


def _relu6(name: str) -> Apply:
    return tf_keras.layers.ReLU(max_value=6.0, name=name)  # type: ignore[no-any-return]


def _leaky_relu(name: str) -> Apply:
    return tf_keras.layers.LeakyReLU(alpha=0.2, name=name)  # type: ignore[no-any-return]


def _hard_sigmoid(name: str) -> Apply:
    """``relu6(x + 3) / 6``."""
    shift = tf_keras.layers.Rescaling(1.0, offset=3.0, name=f"{name}_shift")
    clip = tf_keras.layers.ReLU(max_value=6.0, name=f"{name}_clip")
    scale = tf_keras.layers.Rescaling(1.0 / 6.0, name=name)
    return lambda tensor: scale(clip(shift(tensor)))


def _hard_swish(name: str) -> Apply:
    """``x * relu6(x + 3) / 6``, in the order in which TensorFlow's converter finds its HARD_SWISH."""
    shift = tf_keras.layers.Rescaling(1.0, offset=3.0, name=f"{name}_shift")
    clip = tf_keras.layers.ReLU(max_value=6.0, name=f"{name}_clip")
    multiply = tf_keras.layers.Multiply(name=f"{name}_multiply")
    scale = tf_keras.layers.Rescaling(1.0 / 6.0, name=name)
    return lambda tensor: scale(multiply([tensor, clip(shift(tensor))]))


_SPECIAL_ACTIVATIONS: dict[str, Callable[[str], Apply]] = {
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_swish,
    "hard_swish": _hard_swish,
}


def _refusal(layer: Any, reason: str) -> ModelError:
    return ModelError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt in tf_keras, which quantization-aware "
        f"training, pruning and clustering need: {reason}. Replace the layer, or write the model with tf_keras"
    )


def _compare(model: Any, rebuilt: Any) -> None:
    inputs = [_random(tensor, model) for tensor in model.inputs]
    results = []
    for part in (model, rebuilt):
        tensors = [tf.constant(array) for array in inputs]
        returned = part(pack_inputs(part, tensors), training=False)
        results.append([np.asarray(value, np.float64) for value in flat_outputs(returned, part)])
    mixed = any(getattr(layer, "compute_dtype", None) in ("float16", "bfloat16") for _, layer in walk_layers(model))
    tolerance = MIXED_TOLERANCE if mixed else TOLERANCE
    for name, expected, received in zip(output_names(model), *results, strict=True):
        largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(expected - received).max(initial=0.0)) / largest
        if not difference <= tolerance:
            raise ModelError(
                f"the model {model.name!r} gives another output {name!r} when it is rebuilt in tf_keras: they differ "
                f"by {difference:.1e}, at most {tolerance:.0e} is taken for rounding. Write the model with tf_keras"
            )


def _random(tensor: Any, model: Any) -> Array:
    generator = np.random.default_rng(0)
    free = 64 if len(tensor.shape) == 4 else 8
    shape = [2 if tensor.shape[0] is None else tensor.shape[0]]
    shape += [free if size is None else size for size in tensor.shape[1:]]
    if "int" in str(tensor.dtype):
        tables = [layer.input_dim for _, layer in walk_layers(model) if type(layer).__name__ == "Embedding"]
        return generator.integers(0, min(tables, default=2), shape).astype(tensor.dtype)
    if str(tensor.dtype) == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    return generator.standard_normal(shape).astype(np.float32)
