"""Read a recipe: YAML, ``--set`` changes, and errors that name the place and the nearest known key."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgekit.errors import RecipeError, nearest
from edgekit.recipe.schema import Recipe
from edgekit.records import SCHEMA_VERSION
from edgekit.strict_yaml import parse_yaml

Document = TypeVar("Document", bound=BaseModel)


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file.
        changes: ``key.path=value`` settings, values in YAML, list items by index (``export.0.precision=int8``).

    Raises:
        RecipeError: Missing file, not YAML, unknown key, wrong type, wrong unit, or a newer schema.
    """
    document = read_document(path, what="recipe file", hint="`edgekit init` writes a starter recipe.")
    apply_changes(document, changes)
    return parse_recipe(document, str(path))


def apply_changes(document: dict[str, Any], changes: Sequence[str]) -> None:
    """Change a recipe in memory, in place; ``changes`` as :func:`load_recipe` takes them.

    Raises:
        RecipeError: A change is not ``key.path=value``, or its place does not exist.
    """
    for change in changes:
        _apply(document, change)


def parse_recipe(document: Mapping[str, Any], origin: str) -> Recipe:
    """Check a recipe that is already in memory; ``origin`` names it in errors."""
    return validate_document(Recipe, document, origin, what="recipe")


def parse_recipe_text(text: str, origin: str) -> Recipe:
    """Check the text of a recipe; ``origin`` names it in errors."""
    return parse_recipe(_parse_mapping(text, origin), origin)


def read_document(path: Path, *, what: str, hint: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
        what: What it is, for errors (``recipe file``).
        hint: How to come by one, for the error where there is none.

    Raises:
        RecipeError: Missing file, or not a YAML mapping.
    """
    if not path.is_file():
        raise RecipeError(f"expected a {what}; there is none at {path}. {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: expected UTF-8 text: {error}") from error
    return _parse_mapping(text, str(path))


def _parse_mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{origin}: expected a mapping at the top, received {type(document).__name__}.")
    return document


def validate_document(model: type[Document], document: Mapping[str, Any], origin: str, *, what: str) -> Document:
    """Check a document against its model.

    Args:
        model: What it must hold.
        document: As read.
        origin: Names it in errors.
        what: What it is, for errors (``recipe``).

    Raises:
        RecipeError: Unknown key, wrong type, wrong unit, or a newer schema.
    """
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecipeError(
            f"{origin}: schema_version {version} is newer than this edgekit understands ({SCHEMA_VERSION}). "
            f"Upgrade edgekit, or write the {what} in the older schema."
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise RecipeError(_explain(error, origin, model, what)) from error


def _apply(document: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set expects key.path=value, such as train.epochs=1; received {change!r}.")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: {text!r} is not a YAML value: {error}") from error
    *parents, last = key.split(".")
    place: Any = document
    for part in parents:
        place = _step_into(place, part, key)
    if isinstance(place, list):
        place[_index(place, last, key)] = value
    else:
        place[last] = value


def _step_into(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, key)]
    if place.get(part) is None:
        place[part] = {}
    elif part == "model" and isinstance(place[part], str):
        place[part] = {"source": place[part]}
    if not isinstance(place[part], dict | list):
        raise RecipeError(f"--set {key}: {part!r} holds {place[part]!r}, which has no keys below it.")
    return place[part]


def _index(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise RecipeError(f"--set {key}: expected an index from 0 to {len(items) - 1}, received {part!r}.")
    return int(part)


def _explain(error: ValidationError, origin: str, model: type[BaseModel], what: str) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems:
        if any(other["loc"][: len(problem["loc"])] == problem["loc"] != other["loc"] for other in problems):
            continue  # a container that is wrong only because of what is wrong inside it
        place = [part for part in problem["loc"] if not str(part).startswith(("function-", "literal"))]
        where = ".".join(str(part) for part in place) or what
        if problem["type"] == "extra_forbidden":
            known = _fields_at(place[:-1], model)
            lines.append(f"{where}: unknown key {place[-1]!r}. {nearest(str(place[-1]), known)}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: this key is required.")
        else:
            lines.append(f"{where}: {_in_plain_words(problem)}")
    head = f"{origin}: {len(lines)} problem{'s' if len(lines) > 1 else ''} in the {what}"
    return "\n  ".join([head, *lines])


_PLAIN_WORDS = {
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "model_type": "expected a mapping of keys to values",
    "dict_type": "expected a mapping of keys to values",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
}
"""What pydantic's types of errors are to somebody who writes YAML."""


def _in_plain_words(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    message = str(problem["msg"]).replace("Input should be", "expected").replace("String should", "expected text to")
    message = _PLAIN_WORDS.get(problem["type"], message)
    allowed = re.findall(r"'([^']+)'", problem["ctx"]["expected"]) if problem["type"] == "literal_error" else []
    hint = f". {nearest(problem['input'], allowed)}" if allowed and isinstance(problem["input"], str) else ""
    return f"{message if not hint else 'expected one of the allowed words'}; received {problem['input']!r}{hint}"


def _fields_at(place: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Return the keys that are known at a place of a document."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            found = _section_in(model.model_fields[part].annotation)
            if found is not None:
                model = found
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _section_in(part)) is not None), None)
