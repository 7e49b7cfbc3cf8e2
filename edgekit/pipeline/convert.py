"""A conversion without a recipe is a build of the recipe that says the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import DataError
from edgekit.pipeline.sources import is_entry
from edgekit.recipe import Recipe, parse_recipe
from edgekit.recipe.load import apply_changes


def conversion_recipe(
    model: str,
    *,
    formats: Sequence[str],
    precisions: Sequence[str],
    calibration_data: Path | None,
    builder: str | None = None,
    targets: Sequence[str] = (),
    min_sqnr_db: float | None = None,
    trust: bool = False,
    changes: Sequence[str] = (),
) -> Recipe:
    """Write the recipe of a conversion.

    Args:
        model: A file, a SavedModel folder or ``package.module:callable``.
        formats: To write.
        precisions: Each format is made at each of them.
        calibration_data: Real samples, by which scales are found and outputs compared; None: generated inputs.
        builder: Builds the module that a state dict belongs to.
        targets: Devices to profile on.
        min_sqnr_db: What quantized artifacts must keep.
        trust: Load files that execute code.
        changes: ``key.path=value`` settings of the recipe, such as ``data.args.size=224``.

    Raises:
        RecipeError: An unknown format or precision.
        DataError: ``calibration_data`` is neither a ``.npz`` file, a CSV file nor a folder.
    """
    document: dict[str, Any] = {
        "schema_version": 1,
        "name": _name_of(model),
        "model": {"source": model, "builder": builder, "trust": trust},
        "export": [{"format": name.strip(), "precision": [item.strip() for item in precisions]} for name in formats],
        "profile": {"targets": list(targets)},
    }
    if calibration_data is not None:
        document["data"] = _data_section(calibration_data)
    if min_sqnr_db is not None:
        document["verify"] = {"min_sqnr_db": min_sqnr_db}
    apply_changes(document, changes)
    return parse_recipe(document, f"edgekit convert {model}")


def _name_of(model: str) -> str:
    if is_entry(model):
        module, _, attribute = model.partition(":")
        name = "-".join([*module.split(".")[-2:-1], attribute])
    else:
        path = Path(model).absolute()
        versioned = path.is_dir() and path.name.isdigit()  # TensorFlow Serving's layout: model/1/saved_model.pb
        name = f"{path.parent.name}-{path.name}" if versioned else path.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "model"


def _data_section(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"images": str(path)}
    if path.suffix in (".npz", ".csv") and path.is_file():
        return {path.suffix[1:]: str(path)}
    raise DataError(
        f"--calibration-data: expected a .npz file, a .csv file or a folder of images; received {str(path)!r}"
        f"{'' if path.exists() else ', which does not exist'}."
    )
