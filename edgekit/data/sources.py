"""From the data section of a recipe to a checked dataset."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from edgekit.data.checks import check_dataset
from edgekit.data.dataset import Dataset
from edgekit.data.images import ImageOptions, load_image_csv, load_image_folder
from edgekit.data.npz import NpzOptions, load_npz
from edgekit.errors import DataError, RecipeError, nearest
from edgekit.recipe.schema import DataSection

Options = TypeVar("Options", NpzOptions, ImageOptions)


def load_dataset(section: DataSection) -> Dataset:
    """Load what the data section of a recipe names, and check it.

    Args:
        section: The section; exactly one of its sources is given. Relative paths start at the working folder.

    Raises:
        RecipeError: The callable does not exist, or an argument is unknown or of the wrong type.
        DataError: Files are missing or unreadable, or the samples fail a check (:func:`edgekit.data.check_dataset`).
        MissingToolError: Images without Pillow.
    """
    dataset = _load(section)
    check_dataset(dataset)
    return dataset


def _load(section: DataSection) -> Dataset:
    share, seed = section.validation_share, section.seed
    if section.module is not None:
        return _call(section.module, section.args)
    if section.npz is not None:
        return load_npz(Path(section.npz), _options(NpzOptions, section.args), validation_share=share, seed=seed)
    options = _options(ImageOptions, section.args)
    if section.images is not None:
        return load_image_folder(Path(section.images), options, validation_share=share, seed=seed)
    return load_image_csv(Path(str(section.csv)), options, validation_share=share, seed=seed)


def _call(entry: str, arguments: Mapping[str, Any]) -> Dataset:
    function = _import_callable(entry)
    try:
        bound = inspect.signature(function).bind(**arguments)
    except TypeError as error:
        allowed = inspect.signature(function).parameters
        raise RecipeError(
            f"data.args: {entry} cannot be called with {sorted(arguments)}: {error}. "
            f"Its arguments: {', '.join(str(parameter) for parameter in allowed.values()) or 'none'}."
        ) from error
    dataset = function(*bound.args, **bound.kwargs)
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"data.module: expected {entry} to return an edgekit.data.Dataset; received {type(dataset).__name__}"
        )
    return dataset


def _import_callable(entry: str) -> Callable[..., object]:
    module_name, colon, attribute = entry.partition(":")
    if not (colon and module_name and attribute):
        raise RecipeError(f"data.module: expected 'package.module:callable'; received {entry!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(
            f"data.module: {module_name!r} cannot be imported: {error}. "
            "Run from the folder that holds the package, or install it."
        ) from error
    function: Callable[..., object] | None = getattr(module, attribute, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise RecipeError(f"data.module: {module_name} has no callable {attribute!r}. {nearest(attribute, names)}")
    return function


def _options(kind: type[Options], arguments: Mapping[str, Any]) -> Options:
    allowed = [field.name for field in dataclasses.fields(kind)]
    for name in arguments:
        if name not in allowed:
            raise RecipeError(f"data.args: unknown key {name!r}. {nearest(name, allowed)}")
    try:
        return TypeAdapter(kind).validate_python(dict(arguments))
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        place = ".".join(["data.args", *(str(part) for part in first["loc"])])
        if first["type"] == "missing":
            raise RecipeError(f"{place}: this key is required; write it, or give --set {place}=...") from error
        raise RecipeError(f"{place}: {first['msg']}; received {first['input']!r}") from error
