"""What tests of all folders share."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> None:
    """Set aside what the process holds, once for each file of tests: no collection of garbage walks it again.

    Exporters and timing loops collect garbage by themselves, several times for each model; behind PyTorch, TensorFlow
    and their converters that is a second each time.
    """
    gc.collect()
    gc.freeze()
