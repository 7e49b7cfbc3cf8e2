"""A ``.mlpackage`` of one matrix product, made through coremltools' builder: a real artifact without a conversion."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np


def write_package(path: Path, weights: np.ndarray) -> Path:
    """Write ``y = x @ weights`` in float32 for iOS 17.

    Args:
        path: Of the package.
        weights: ``[inputs, outputs]``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb

        @mb.program(input_specs=[mb.TensorSpec((1, weights.shape[0]))], opset_version=ct.target.iOS17)
        def program(x):
            return mb.matmul(x=x, y=weights.astype(np.float32), name="y")

        model = ct.convert(
            program, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )  # fmt: skip
        model.save(str(path))
    return path
