"""Import coremltools without TensorFlow."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from types import ModuleType


def import_coremltools() -> ModuleType:
    """Import coremltools quietly and without TensorFlow, which it loads where it finds it.

    That would take 11 s and 700 MB, and nothing here uses it. TensorFlow stays importable afterwards.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    blocked = "tensorflow" not in sys.modules
    if blocked:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coremltools = importlib.import_module("coremltools")
    finally:
        if blocked:
            del sys.modules["tensorflow"]
    return coremltools
