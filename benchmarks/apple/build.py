"""Build one artifact of one network: `python -m benchmarks.apple.build NETWORK ARTIFACT FOLDER`.

``fp16`` is converted by coremltools; ``w8`` is that with its weights quantized by coremltools, as Apple's table has it;
``int8`` (weights and activations) is built by edgekit, as coremltools cannot calibrate without a Mac.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.apple.networks import IMAGE, build

ROOT = Path(__file__).parents[2]
CALIBRATION = {"samples": 40, "size": IMAGE}


def converted(network: str) -> Any:
    """Convert a network to a float16 ML program, on a machine that cannot run it."""
    import coremltools as ct

    example = torch.zeros(1, 3, IMAGE, IMAGE)
    return ct.convert(
        torch.jit.trace(build(network), example),
        inputs=[ct.TensorType(name="image", shape=example.shape)],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )


def weights_quantized(model: Any) -> Any:
    """Quantize the weights to int8, a scale a channel."""
    from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

    return linear_quantize_weights(model, OptimizationConfig(OpLinearQuantizerConfig(mode="linear_symmetric")))


def quantized(network: str, output: Path) -> None:
    """Quantize weights and activations and convert: a build of edgekit's."""
    recipe = {
        "schema_version": 1,
        "name": network.replace("_", "-"),
        "model": {"source": "benchmarks.apple.networks:build", "args": {"network": network}},
        "data": {"module": "sample_models.mobilenet_v2.data:load", "args": CALIBRATION, "calibration_samples": 4},
        "compress": [{"quantize": {"precision": "int8", "mode": "ptq"}}],
        "export": [{"format": "coreml", "precision": ["int8"], "minimum_deployment_target": "iOS17"}],
        "verify": {"samples": 2, "min_sqnr_db": 0},
        "profile": {"targets": []},
    }
    with tempfile.TemporaryDirectory() as scratch:
        path, folder = Path(scratch) / "recipe.yaml", Path(scratch) / "build"
        path.write_text(yaml.safe_dump(recipe))
        command = [str(Path(sys.executable).parent / "edgekit"), "build", str(path), "-o", str(folder)]
        done = subprocess.run(command, cwd=ROOT, check=False)
        made = next(folder.glob("artifacts/coreml/*.mlpackage"), None)
        if made is None:
            raise SystemExit(f"no artifact: edgekit build left with {done.returncode}")
        made.rename(output)


def main() -> None:
    """Build what is named."""
    network, artifact, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    output = folder / f"{network}-{artifact}.mlpackage"
    if output.exists():
        return
    if artifact == "int8":
        quantized(network, output)
        return
    model = converted(network)
    (weights_quantized(model) if artifact == "w8" else model).save(str(output))


if __name__ == "__main__":
    main()
