"""Train a PyTorch sample model for one epoch on generated data and write its weights for both twins.

`python -m benchmarks.frameworks.make_weights MODEL FOLDER` writes FOLDER/weights.pt and FOLDER/weights.npz. Trained
weights, because the statistics of batch norms and the scales of activations should be a real network's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

from edgekit.frameworks.keras.weights_file import write_weights
from edgekit.frameworks.pytorch.train import train_module
from edgekit.recipe.schema import TrainSection
from sample_models.carry_weights import carry


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    load, build, build_twin = (
        getattr(importlib.import_module(f"sample_models.{model}.{part}"), name)
        for part, name in (("data", "load"), ("model_pytorch", "build"), ("model_keras", "build"))
    )
    torch.manual_seed(0)
    module = build()
    train_module(module, load(), TrainSection(epochs=1))
    module.eval()
    torch.save(module.state_dict(), folder / "weights.pt")
    twin = build_twin()
    carry(module, twin)
    write_weights(twin, folder / "weights.npz")


if __name__ == "__main__":
    main()
