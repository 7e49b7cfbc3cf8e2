"""Keep the chatter of third-party converters away from our own warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Run a tool without its warnings; its errors are still logged, and exceptions pass.

    Args:
        logger: Name of the tool's logger (``torchao``).
    """
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(level)
