"""Programs of tiny Keras models, made as a build makes them: by TensorFlow's converter and the reader of its files."""

from __future__ import annotations

import warnings
from pathlib import Path

from edgekit.contracts import load_entry
from edgekit.frameworks import framework_spec
from edgekit.frameworks.requests import ProgramRequest
from edgekit.recipe.schema import DataSection, ModelSection, VerifySection
from edgekit.records import Precision, Program

NETS = "contracts.keras_nets"


def build_program(name: str, precision: Precision, folder: Path, *, dynamic_batch: bool = False) -> Program:
    """Write the program of a tiny model with its reference and calibration samples, and describe it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow warns about itself while it is imported
        from contracts import keras_nets

        from edgekit.frameworks.keras.load import load_source
        from edgekit.frameworks.keras.weights_file import write_weights
    model = ModelSection(source=f"{NETS}:{name}")
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_weights(load_source(model).model, folder / "weights.npz")
        request = ProgramRequest(
            model=model,
            data=DataSection(module=f"{NETS}:data", args={"model": name}, calibration_samples=keras_nets.CALIBRATION),
            weights=folder / "weights.npz",
            precision=precision,
            quantize=None,
            train=None,
            prune=None,
            distil=None,
            verify=VerifySection(samples=keras_nets.SAMPLES),
            dynamic_batch=dynamic_batch,
            work_dir=folder / "work",
            output_dir=folder,
        )
        program: Program = load_entry(framework_spec("keras").to_program)(request)
        return program
