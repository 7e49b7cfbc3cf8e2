"""Functions that a recipe names as ``package.module:callable``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import ModelError, nearest
from edgekit.recipe.schema import ModelSection


def import_callable(text: str, place: str) -> Callable[..., Any]:
    """Import ``package.module:callable``.

    Args:
        text: As written by the user.
        place: Where they wrote it; errors name it.

    Raises:
        ModelError: The module cannot be imported, or holds no such callable.
    """
    module_name, _, attribute = text.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"{place}: the module {module_name!r} of {text!r} cannot be imported: {error}. Run from the folder that "
            "holds the package, or install it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        kind = "is no callable" if hasattr(module, attribute) else "does not exist"
        raise ModelError(f"{place}: {attribute!r} of {text!r} {kind}. {nearest(attribute, names)}")
    return found  # type: ignore[no-any-return]


def call_builder(text: str, arguments: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    """Call the ``package.module:callable`` that builds a model.

    Args:
        text: As written by the user.
        arguments: Keyword arguments, ``model.args`` of a recipe.
        place: Where the user wrote it; errors name it.

    Returns:
        What it built, and the example inputs that came with it: an empty tuple where it returned a model alone.

    Raises:
        ModelError: It cannot be imported, or takes other arguments.
    """
    function = import_callable(text, place)
    try:
        inspect.signature(function).bind(**arguments)
    except ValueError:
        pass  # a class written in C tells no signature; calling it will say what is wrong
    except TypeError as error:
        raise ModelError(
            f"{place}: {text} cannot be called with model.args {dict(arguments)!r}: {error}. "
            f"Its parameters are {inspect.signature(function)}"
        ) from error
    built = function(**arguments)
    return built if isinstance(built, tuple) and len(built) == 2 else (built, ())


def builder_of(section: ModelSection, path: Path) -> str:
    """Return the callable that builds the model which a file of weights belongs to.

    Raises:
        ModelError: The recipe names none.
    """
    if section.builder is None:
        raise ModelError(
            f"model.source: {path.name!r} holds weights only. Give model.builder, the package.module:callable that "
            "builds the model they belong to"
        )
    return section.builder
