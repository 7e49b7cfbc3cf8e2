"""A source model as the SavedModel that TensorFlow's converter reads: fixed names, fixed order, variables in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from edgekit.errors import ModelError
from edgekit.frameworks.keras.files import REFUSALS
from edgekit.frameworks.keras.load import Source
from edgekit.frameworks.keras.runner import input_specs, output_specs
from edgekit.frameworks.keras.signature import flat_outputs, pack_inputs
from edgekit.records import TensorSpec

SIGNATURE = "serving_default"
_HALF = (tf.float16, tf.bfloat16)
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_.]")


@dataclass(frozen=True, slots=True)
class Interface:
    """What a converted file takes and returns, in the model's own order.

    Attributes:
        inputs: Batch 1; free sizes are None.
        outputs: Their names.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]


def interface_of(source: Source) -> Interface:
    """Return a source's own interface, with names that a TensorFlow graph can hold (``/`` becomes ``_``)."""
    return Interface(
        tuple(
            TensorSpec(name=name, dtype=spec.dtype, shape=spec.shape)
            for name, spec in zip(_safe([spec.name for spec in input_specs(source)]), input_specs(source), strict=True)
        ),
        _safe([spec.name for spec in output_specs(source)]),
    )


def write_saved_model(source: Source, interface: Interface, folder: Path, *, dynamic_batch: bool) -> None:
    """Write what the converter reads: one signature with the names and the order of ``interface``.

    A batch of 1 is written down where no other is asked for: recurrent layers convert with a fixed batch only, and
    reshapes become constants instead of operators that compute a shape.

    The variables of Keras 3 become constants here. TensorFlow's converter does not recognize them in a SavedModel of
    Keras 3 and leaves reads of variables that nothing ever writes: files that return noise. Those of tf_keras stay,
    because freezing them would dissolve the functions that the converter fuses (LSTM).

    Args:
        source: A Keras model, or a SavedModel's signature.
        interface: Of the model (the source's own; a model with fake quantization keeps that of its source).
        folder: To write; must not exist.
        dynamic_batch: Whether the batch stays free.

    Raises:
        ModelError: The model cannot be traced; the reason is TensorFlow's.
    """
    batch = None if dynamic_batch else 1
    specs = [tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name=spec.name) for spec in interface.inputs]
    module = tf.Module()
    module.source = source.owner if source.library == "saved_model" else source.model
    try:
        call = _traced(_caller(source), specs)
        if source.library == "keras":
            call = convert_variables_to_constants_v2(call, lower_control_flow=False)
        module.serve = _traced(_named(call, interface.outputs), specs)
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.serve})
    except REFUSALS as error:
        lines = [line for line in str(error).strip().splitlines() if line] or [type(error).__name__]
        raise ModelError(
            f"the model cannot be recorded for conversion ({type(error).__name__}: {lines[0][:300]}). "
            "Write its call with TensorFlow or Keras operations, without Python code that depends on values"
        ) from error


def _traced(function: Callable[..., Any], specs: Sequence[Any]) -> Any:
    return tf.function(function, input_signature=list(specs), autograph=False).get_concrete_function()


def _caller(source: Source) -> Callable[..., list[Any]]:
    if source.library == "saved_model":
        names = list(source.model.structured_input_signature[1])

        def call_signature(*tensors: Any) -> list[Any]:
            returned = source.model(**dict(zip(names, tensors, strict=True)))
            return [_single(returned[name]) for name in source.model.structured_outputs]

        return call_signature

    def call_model(*tensors: Any) -> list[Any]:
        returned = source.model(pack_inputs(source.model, tensors), training=False)
        return [_single(tf.convert_to_tensor(value)) for value in flat_outputs(returned, source.model)]

    return call_model


def _single(value: Any) -> Any:
    """Widen half-precision outputs: every artifact returns float32."""
    return tf.cast(value, tf.float32) if value.dtype in _HALF else value


def _named(call: Callable[..., Any], names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    def serve(*tensors: Any) -> dict[str, Any]:
        returned = call(*tensors)
        flat = list(returned) if isinstance(returned, list | tuple) else [returned]
        return dict(zip(names, flat, strict=True))

    return serve


def _safe(names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        safe = _FORBIDDEN.sub("_", name)
        safe = safe if safe[:1].isalpha() else f"tensor_{safe}"
        found.append(safe if safe not in found else f"{safe}_{found.count(safe) + 1}")
    return tuple(found)
