"""What a recipe names must exist: refused before a build folder is touched, and by ``--dry-run`` too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from edgekit.data.fingerprint import locate_module
from edgekit.errors import DataError, ModelError, RecipeError
from edgekit.pipeline.sources import framework_of_folder, is_entry, source_kinds
from edgekit.recipe.schema import DataSection, DistilRule, ModelSection, Recipe


def check_inputs(recipe: Recipe) -> None:
    """Look for every file and module that a recipe names. Nothing is read, imported or executed.

    Raises:
        ModelError: A model file, weights or a model's module is missing.
        DataError: A data file or folder is missing.
        RecipeError: The module of the data or of the loss is missing.
    """
    for place, section in _models(recipe):
        _check_model(place, section)
    if recipe.data is not None:
        _check_data(recipe.data)
    if recipe.train is not None and ":" in recipe.train.loss:
        _require_module("train.loss", recipe.train.loss, RecipeError)


def _models(recipe: Recipe) -> Iterator[tuple[str, ModelSection]]:
    yield "model", recipe.model
    rule = cast(DistilRule | None, recipe.rule("distil"))
    if rule is not None:
        yield "compress.distil.teacher", rule.teacher


def _check_model(place: str, section: ModelSection) -> None:
    for key in ("source", "builder", "weights"):
        text = getattr(section, key)
        if text is None:
            continue
        if key != "weights" and is_entry(text):
            _require_module(f"{place}.{key}", text, ModelError)
        elif key == "source" and framework_of_folder(Path(text)) is not None:
            continue
        elif not Path(text).is_file():
            expected = "a file" if key == "weights" else source_kinds()
            state = f"{text!r} is no file" if Path(text).exists() else f"there is no file {text!r} in {Path.cwd()}"
            raise ModelError(f"{place}.{key}: expected {expected}; {state}.")


def _check_data(section: DataSection) -> None:
    if section.module is not None:
        _require_module("data.module", section.module, RecipeError)
    for key in ("npz", "images", "csv"):
        named = getattr(section, key)
        if named is None:
            continue
        path, kind = Path(named), "folder" if key == "images" else "file"
        if not (path.is_dir() if kind == "folder" else path.is_file()):
            state = f"it is no {kind}" if path.exists() else f"there is none in {Path.cwd()}"
            raise DataError(f"data.{key}: expected a {kind} at {named!r}; {state}.")


def _require_module(place: str, entry: str, kind: type[ModelError | RecipeError]) -> None:
    module, _, attribute = entry.partition(":")
    if not module or not attribute.isidentifier():
        raise kind(f"{place}: expected 'package.module:callable'; received {entry!r}.")
    if locate_module(module) is None:
        raise kind(
            f"{place}: there is no module {module!r} for {entry!r}. Modules are found from the working folder "
            f"({Path.cwd()}) and among installed packages; run from the folder that holds it, or install it."
        )
