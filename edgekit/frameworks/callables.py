"""Functions that a recipe names as ``package.module:callable``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from edgekit.errors import ModelError, nearest


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
