"""Predicted placement against Core ML's own plans, made elsewhere: `python -m benchmarks.coreml.placement.run`.

Each published row is rebuilt as a program of the same operation and size (weights drawn) and placed for the chip class
it was asked on, with CPU and Neural Engine allowed. Agreement is counted apart for rows that were known when rules and
figures were chosen and for those that were not. No limit: the figures say how far a prediction can be believed.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.results import write_result
from edgekit.formats.coreml.placement.predict import predict
from edgekit.formats.light_imports import import_coremltools

ct = import_coremltools()
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

ROWS = Path(__file__).with_name("published.yaml")
CHIP = "m4"


def matmul(size: int) -> tuple[tuple[tuple[int, ...], ...], Any]:
    return ((size, size), (size, size)), lambda x, y: mb.matmul(x=x, y=y)


def affine(size: int) -> tuple[tuple[tuple[int, ...], ...], Any]:
    shape = (size, size)
    return (shape, shape), lambda x, y: mb.add(x=mb.mul(x=x, y=y), y=y)


def attention(*shape: int) -> tuple[tuple[tuple[int, ...], ...], Any]:
    return (shape, shape), lambda x, y: mb.scaled_dot_product_attention(query=x, key=y, value=y)


def spectrogram(samples: int) -> tuple[tuple[tuple[int, ...], ...], Any]:
    """Start of a log-mel spectrogram: reflecting padding, a Fourier transform as a convolution, its power."""
    kernel = np.random.default_rng(0).normal(size=(201, 1, 400)).astype(np.float16)

    def build(x: Any, y: Any) -> Any:
        del y
        padded = mb.pad(x=mb.reshape(x=x, shape=[1, 1, samples]), pad=[0, 0, 0, 0, 200, 200], mode="reflect")
        found = mb.conv(x=mb.reshape(x=padded, shape=[1, 1, samples + 400]), weight=kernel, strides=[160])
        return mb.square(x=mb.squeeze(x=found, axes=[0]))

    return ((samples,), (1,)), build


PROGRAMS = {"matmul": matmul, "affine": affine, "attention": attention, "spectrogram": spectrogram}


def place(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    shapes, build = PROGRAMS[row["program"]](*row["sizes"])
    half = row["dtype"] == "float16"

    @mb.program(
        input_specs=[mb.TensorSpec(shape=shape, dtype=types.fp32) for shape in shapes], opset_version=ct.target.iOS18
    )
    def program(x: Any, y: Any) -> Any:
        inputs = (mb.cast(x=x, dtype="fp16"), mb.cast(x=y, dtype="fp16")) if half else (x, y)
        found = build(*inputs)
        return mb.cast(x=found, dtype="fp32") if half else found

    package = folder / "model.mlpackage"
    ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        pass_pipeline=ct.PassPipeline.EMPTY,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(package))
    operations = predict(package, "cpuAndNeuralEngine", CHIP).operations
    found = next(item for item in operations if item.type == row["type"])
    supported = row.get("supported")
    return {
        **row,
        "predicted": found.preferred,
        "agrees": found.preferred == row["preferred"] and (supported is None or sorted(found.units) == supported),
    }


def main() -> int:
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))["rows"]
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows:
            with tempfile.TemporaryDirectory() as folder:
                found.append(place(row, Path(folder)))

    def share(seen: bool) -> dict[str, int]:
        chosen = [row for row in found if row["seen"] is seen]
        return {"rows": len(chosen), "agree": sum(row["agrees"] for row in chosen)}

    write_result("coreml_placement", {"held_out": share(False), "seen": share(True), "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
