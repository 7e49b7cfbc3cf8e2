"""Where and in which arithmetic training runs: what ``auto`` becomes, and devices that train in parallel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf
from tensorflow.python.framework import config as runtime_config  # only here can determinism be switched off again

from edgekit.errors import ModelError, RecipeError
from edgekit.frameworks.keras.library import is_model, library_of
from edgekit.recipe.schema import TrainSection

__all__ = ["Placement", "clone", "deterministic_operations", "open_strategy", "place"]

Autocast = Literal["fp32", "bf16", "fp16"]
_POLICIES = {"bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What every ``auto`` of the training settings became.

    Attributes:
        device: ``cpu``, ``cuda:0`` ...
        autocast: The arithmetic of matrix multiplications and convolutions.
        compile: Whether the training step goes through XLA (``jit_compile``).
        replicas: Devices that take part.
    """

    device: str
    autocast: Autocast
    compile: bool
    replicas: int

    @property
    def policy(self) -> str | None:
        """Keras's name of the arithmetic; None: float32 throughout, as models are built."""
        return _POLICIES.get(self.autocast)

    @property
    def plain(self) -> bool:
        """Whether a model trains as it was built: in float32, on TensorFlow's own choice of device."""
        on_default = self.device == ("cuda:0" if tf.config.list_physical_devices("GPU") else "cpu")
        return self.policy is None and self.replicas == 1 and on_default


def place(settings: TrainSection) -> Placement:
    """Resolve the ``auto`` settings for this machine.

    On CUDA: bf16 where the GPU has it (fp16 elsewhere). On CPU: fp32. XLA is taken only where it is asked for: it does
    not know every operation of a model, and small models gain little from it. Keras's layout is channels-last always.

    Raises:
        RecipeError: The device does not exist here, or cannot compute in the precision that was asked for.
    """
    kind, index = _device(settings.device)
    replicas = _replicas(settings.devices, kind)
    return Placement(
        device="cpu" if kind == "cpu" else f"cuda:{index}",
        autocast=_autocast(settings.precision, kind, index),
        compile=settings.compile is True,
        replicas=replicas,
    )


def _device(name: str) -> tuple[str, int]:
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise RecipeError(f"train.device: expected auto, cpu, cuda or cuda:<index>; received {name!r}.")
    if kind == "cpu":
        return "cpu", 0
    wanted = int(index or "0")
    if wanted >= len(gpus):
        raise RecipeError(
            f"train.device: expected one of the {len(gpus)} CUDA devices that TensorFlow sees on this machine; "
            f"received {name!r}. Write device: auto to take a GPU only where there is one."
        )
    return "cuda", wanted


def _autocast(wanted: Literal["auto", "fp32", "bf16", "fp16"], kind: str, index: int) -> Autocast:
    if wanted != "auto":
        if wanted == "fp16" and kind == "cpu":
            raise RecipeError(
                "train.precision: fp16 needs a GPU (on a CPU it is slower than fp32 and overflows); "
                "received device cpu. Write precision: auto, bf16 or fp32."
            )
        return wanted
    if kind == "cpu":
        return "fp32"
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[index])
    return "bf16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "fp16"


def _replicas(wanted: int, kind: str) -> int:
    """Count the devices that train, making virtual CPU devices where several are asked for."""
    if wanted == 1:
        return 1
    if kind == "cpu":
        _split_cpu(wanted)
    found = len(tf.config.list_logical_devices("GPU" if kind == "cuda" else "CPU"))
    if found < wanted:
        raise RecipeError(
            f"train.devices: expected at most {found}, the {kind} devices that TensorFlow has here; received {wanted}. "
            "Lower train.devices; the batch size counts all devices together, so the result stays the same."
        )
    return wanted


def _split_cpu(parts: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * parts)
        except RuntimeError:
            return  # TensorFlow has started; the devices it has are counted by the caller


def open_strategy(placement: Placement) -> Any:
    """Return the ``tf.distribute`` strategy under which the model's variables must be made."""
    kind, _, index = placement.device.partition(":")
    prefix = "/gpu" if kind == "cuda" else "/cpu"
    if placement.replicas > 1:
        return tf.distribute.MirroredStrategy([f"{prefix}:{number}" for number in range(placement.replicas)])
    if placement.plain or (placement.device in ("cpu", "cuda:0") and not _hides_gpu(placement)):
        return tf.distribute.get_strategy()
    return tf.distribute.OneDeviceStrategy(f"{prefix}:{index or 0}")


def _hides_gpu(placement: Placement) -> bool:
    return placement.device == "cpu" and bool(tf.config.list_physical_devices("GPU"))


def clone(model: Any, *, policy: str | None = None, strategy: Any = None) -> Any:
    """Build a model anew, with the same weights in variables of its own.

    Args:
        model: A keras or tf_keras model.
        policy: Keras's name of the arithmetic; None: that of the layers.
        strategy: Under which the variables are made; None: TensorFlow's own choice.

    Raises:
        ModelError: The model is written as a class of its own, which cannot be built from its configuration.
    """
    library = library_of(model)

    def fresh(layer: Any) -> Any:
        if is_model(layer):
            return library.models.clone_model(layer, clone_function=fresh)
        config = layer.get_config()
        if policy is not None:
            config["dtype"] = policy
        copied = type(layer).from_config(config)
        copied.trainable = layer.trainable
        return copied

    try:
        with (strategy or tf.distribute.get_strategy()).scope():
            copy = library.models.clone_model(model, clone_function=fresh)
            copy.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(
            f"expected a Sequential or functional model, whose layers can be built from their configuration; received "
            f"{type(model).__name__} ({error}). Pruning, clustering, 16-bit training (train.precision) and several "
            "devices need that; without them the model trains as it is."
        ) from error
    return copy


@contextmanager
def deterministic_operations() -> Iterator[None]:
    """Have TensorFlow take its deterministic kernels, and put the former choice back afterwards.

    The same seed then gives the same weights, on a GPU too.
    """
    former = runtime_config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not former:
            runtime_config.disable_op_determinism()
