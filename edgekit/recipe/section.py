"""What every part of a recipe is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator


class Section(BaseModel):
    """Base of every part of a recipe: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LayerRules(Section):
    """Base of rules that pick layers."""

    skip: tuple[str, ...] = ()
    """Layers left alone: by name (``features.0``), pattern (``features.*``) or type (``type:Linear``)."""

    @field_validator("skip", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return as_tuple(value)


def as_tuple(value: object) -> object:
    """Let one word stand for a list of it."""
    return (value,) if isinstance(value, str) else value
