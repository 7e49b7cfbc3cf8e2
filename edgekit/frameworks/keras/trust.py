"""What loading a saved Keras configuration would execute, found by reading it: nothing is loaded or imported.

Keras's own safe mode is not enough: tf_keras runs the bytecode of a ``Lambda`` layer in ``.h5`` files and SavedModels
without asking, and imports whatever module a ``.keras`` archive names.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.data.fingerprint import locate_module
from edgekit.errors import ModelError, UntrustedCodeError

_DATA_CLASSES = frozenset(
    ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__typespec__")
)
"""What Keras writes like a class, and is a value."""

_CLASS_PLACES = (
    "layers", "models", "initializers", "regularizers", "constraints", "optimizers", "losses", "metrics",
    "activations", "dtype_policies", "mixed_precision", "quantizers", "random", "ops",
)  # fmt: skip
"""Public packages of Keras whose classes a model's configuration may name."""

_FUNCTION_PLACES = ("activations", "initializers", "regularizers", "constraints", "losses", "metrics")
"""Public packages of Keras whose functions a configuration may name: the others may read, write or download files."""

_INTERNAL_PLACES = (*_CLASS_PLACES, "engine", "backend", "mixed_precision", "optimizers", "saving")
"""Packages below ``keras.src``, where older files point to."""

_INTERNAL_CLASSES = frozenset(
    (
        "Functional", "Model", "Sequential", "DTypePolicy", "Policy", "TFOpLambda", "SlicingOpLambda",
        "TensorFlowOpLayer", "ClassMethod", "InstanceMethod", "InstanceProperty", "CustomMask", "function",
    )
)  # fmt: skip
"""Classes of Keras that no public package lists."""

_FILE_FUNCTIONS = ("io.", "raw_ops.", "py_function", "numpy_function", "saved_model.", "load_", "train.", "data.")
"""Functions of TensorFlow that read and write files or call Python, which a ``TFOpLambda`` layer could name."""

FILE_OPERATIONS = frozenset(("ReadFile", "WriteFile", "PyFunc", "PyFuncStateless", "EagerPyFunc"))
"""Operations of a TensorFlow graph that no inference needs and that reach out of it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something in a configuration that is not Keras's own.

    Attributes:
        kind: ``code``: Python that the file carries, or a call that reaches out of the model. ``object``: a class or
            function that the file only names.
        layer: The layer that needs it.
        name: Of the class or function.
        registered: The name that it is registered under, such as ``Package>Name``.
        module: Where the file says that it is defined; None where it does not say.
    """

    kind: Literal["code", "object"]
    layer: str
    name: str
    registered: str
    module: str | None


def foreign_parts(config: Any, library: Any, layer: str = "the model") -> Iterator[Foreign]:
    """Walk a model's configuration and yield what is not Keras's own.

    Args:
        config: As in the file.
        library: The module ``keras`` or ``tf_keras``.
        layer: The layer that ``config`` belongs to.
    """
    if isinstance(config, list | tuple):
        for part in config:
            yield from foreign_parts(part, library, layer)
        return
    if not isinstance(config, Mapping):
        return
    if config.get("class_name") in _DATA_CLASSES:
        return
    if isinstance(config.get("class_name"), str) and "config" in config:
        layer = _layer_name(config["config"]) or layer
        found = _judge(config, library, layer)
        if found is not None:
            yield found
    for key, part in config.items():
        if key not in ("class_name", "registered_name", "module"):
            yield from foreign_parts(part, library, layer)


def _layer_name(inner: Any) -> str | None:
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def _judge(config: Mapping[str, Any], library: Any, layer: str) -> Foreign | None:
    name, inner = str(config["class_name"]), config["config"]
    module = config.get("module") if isinstance(config.get("module"), str) else None
    registered = str(config.get("registered_name") or name)
    if name == "__lambda__" or (name == "Lambda" and _carries_code(inner)) or _reaches_out(name, inner):
        return Foreign("code", layer, name, registered, module)
    if name == "function":
        target = str(inner)
        known = _is_known_function(target, module, library) or _is_registered(library, target, registered)
        return None if known else Foreign("object", layer, target, target, module)
    if _is_registered(library, registered, name) or _is_known_class(name, module, library):
        return None
    return Foreign("object", layer, name, registered, module)


def _carries_code(inner: Any) -> bool:
    """tf_keras writes the bytecode of a lambda beside the word ``lambda``; Keras 3 as a ``__lambda__`` inside."""
    return isinstance(inner, Mapping) and any(
        inner.get(key) == "lambda" for key in ("function_type", "output_shape_type", "mask_type")
    )


def _reaches_out(name: str, inner: Any) -> bool:
    if name == "TFOpLambda" and isinstance(inner, Mapping):
        function = str(inner.get("function", ""))
        return function.startswith(_FILE_FUNCTIONS)
    if name == "TensorFlowOpLayer":
        text = str(inner)
        return any(operation in text for operation in FILE_OPERATIONS)
    return False


def _is_registered(library: Any, *names: str) -> bool:
    return any(library.saving.get_registered_object(name) is not None for name in names)


def _is_known_function(name: str, module: str | None, library: Any) -> bool:
    place = (module or "builtins").removeprefix("tf_").removeprefix("keras").removeprefix(".")
    if place not in ("builtins", *_FUNCTION_PLACES):
        return False
    return any(hasattr(getattr(library, part, None), name) for part in _FUNCTION_PLACES)


def _is_known_class(name: str, module: str | None, library: Any) -> bool:
    if module is None:
        places = [getattr(library, place, None) for place in _CLASS_PLACES]
        return name in _INTERNAL_CLASSES or any(isinstance(getattr(place, name, None), type) for place in places)
    parts = module.split(".")
    if parts[0] not in ("keras", "tf_keras"):
        return False
    if len(parts) == 1:
        return name in _INTERNAL_CLASSES or isinstance(getattr(library, name, None), type)
    return parts[1] in _CLASS_PLACES or (parts[1] == "src" and len(parts) > 2 and parts[2] in _INTERNAL_PLACES)


def custom_objects(config: Any, library: Any, *, file: str, trust: bool) -> dict[str, Any]:
    """Judge a configuration, and import what it names where the user trusts it.

    Args:
        config: As in the file.
        library: The module ``keras`` or ``tf_keras``.
        file: The file's name, for messages.
        trust: Whether the user said ``--trust``.

    Returns:
        Name -> class or function, for Keras's loader.

    Raises:
        UntrustedCodeError: Loading would execute code, and ``trust`` is not set.
        ModelError: A custom class or function is neither registered nor to be found.
    """
    found: dict[str, Any] = {}
    for part in foreign_parts(config, library):
        if part.kind == "code":
            if not trust:
                raise UntrustedCodeError(_code_message(part, file))
        elif part.module is None or locate_module(part.module) is None:
            raise ModelError(_unknown_message(part, file, library))
        elif not trust:
            raise UntrustedCodeError(
                f"{file!r}: layer {part.layer!r} needs {part.name!r} of the module {part.module!r}, which loading "
                "would import and execute. If you trust where the file comes from, allow it with --trust (model.trust "
                "in a recipe); or give the model as package.module:callable, a function of your code that builds it"
            )
        else:
            found |= _imported(part, file, library)
    return found


def _imported(part: Foreign, file: str, library: Any) -> dict[str, Any]:
    module_name = str(part.module)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"{file!r}: layer {part.layer!r} needs {part.name!r} of {module_name!r}, which cannot be imported: {error}"
        ) from error
    value = getattr(module, part.name, None) or library.saving.get_registered_object(part.registered)
    if value is None:
        raise ModelError(f"{file!r}: layer {part.layer!r} needs {part.name!r}; the module {module_name!r} has none")
    return {part.name: value, part.registered: value}


def _code_message(part: Foreign, file: str) -> str:
    if part.name in ("Lambda", "__lambda__"):
        what = "is a Lambda layer, whose Python code the file carries and loading would execute"
    else:
        what = f"({part.name}) calls a function of TensorFlow that reads or writes files or calls Python"
    return (
        f"{file!r}: layer {part.layer!r} {what}. If you trust where the file comes from, allow it with --trust "
        "(model.trust in a recipe); better, replace it by a layer class registered with "
        "@keras.saving.register_keras_serializable"
    )


def _unknown_message(part: Foreign, file: str, library: Any) -> str:
    return (
        f"{file!r}: layer {part.layer!r} is or needs the custom class or function {part.name!r}, which is not "
        f"registered here. Decorate it with @{library.__name__}.saving.register_keras_serializable() and give the "
        "model as package.module:callable, a function of your code that builds it (its weights as model.weights)"
    )
