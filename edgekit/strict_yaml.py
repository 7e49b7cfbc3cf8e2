"""Read YAML as people meant it: a key that is written twice is an error, never a silent loss of the first."""

from __future__ import annotations

from typing import Any

import yaml

_SHALLOW_CHARACTERS, _SHALLOW_MARKS = 1 << 16, 500
"""Each level of nesting takes one of the marks, or a line that is indented further than the one before."""


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    twice = next((key for key, _ in reversed(node.value) if keys.count(key.value) > 1 and key.value != "<<"), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(
            None, None, f"the key {twice.value!r} is written twice", twice.start_mark
        )
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


class _Loader(yaml.SafeLoader):
    """In Python: slow, and its errors show the line."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML may lack the C parser
    """In C where PyYAML was built with it: several times as fast, which core tables are long enough to feel."""


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_FastLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def parse_yaml(text: str) -> Any:
    """Return the one document in a text: mappings, lists, strings, numbers, booleans, None and dates.

    Raises:
        yaml.YAMLError: No YAML, several documents, a tag that is not of these, a date that there is not, lists within
            lists within lists without end, or a key that is written twice; the message shows the place.
    """
    try:
        return _load(text)
    except RecursionError as error:
        raise yaml.YAMLError("expected a document that people can read: this one is nested too deeply") from error
    except ValueError as error:  # of a date
        raise yaml.YAMLError(f"expected values that exist: {error}") from error


def _load(text: str) -> Any:
    if not _is_shallow(text):
        return yaml.load(text, Loader=_Loader)
    try:
        return yaml.load(text, Loader=_FastLoader)
    except yaml.YAMLError:
        return yaml.load(text, Loader=_Loader)  # fails alike, and says more


def _is_shallow(text: str) -> bool:
    """Whether it cannot be nested deeply: the C parser recurses without a limit, until the process dies of it."""
    return len(text) <= _SHALLOW_CHARACTERS and sum(map(text.count, "[{-?")) <= _SHALLOW_MARKS
