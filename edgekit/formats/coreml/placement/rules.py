"""Read the rules: which unit refuses what, what units cost, which Neural Engine a chip has."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edgekit.errors import TargetError, ToolError, nearest
from edgekit.formats.coreml.placement.conditions import Condition
from edgekit.formats.coreml.placement.facts import OperationFacts
from edgekit.records import Unit
from edgekit.strict_yaml import parse_yaml

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Standing = Literal["read", "recalled", "estimate"]
"""``read``: in the named source; ``recalled``: from memory of it; ``estimate``: ours, for the stated reason."""
UNITS: tuple[Unit, ...] = ("cpu", "gpu", "neural_engine")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Source(_Strict):
    """Where an entry is from."""

    standing: Standing
    url: Text | None = None
    """Address; needed unless it is an estimate."""
    quote: Text
    """What it says there; of an estimate: why."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.standing != "estimate" and self.url is None:
            raise ValueError(f"expected an address for a source that is {self.standing}; received none")
        return self

    def __str__(self) -> str:
        words = f"{self.standing}: {self.url}" if self.standing == "recalled" else self.url
        return words or f"estimate: {self.quote}"


class Generations(_Strict):
    """Generations of the Neural Engine, both ends included."""

    first: int | None = None
    last: int | None = None

    @property
    def limited(self) -> bool:
        """Whether some are left out."""
        return self.first is not None or self.last is not None

    def includes(self, generation: int) -> bool:
        """Whether a generation is among them."""
        return (self.first or 0) <= generation and (self.last is None or generation <= self.last)


class Rule(_Strict):
    """What a unit refuses."""

    id: Text
    units: tuple[Unit, ...] = Field(min_length=1)
    """Those that refuse."""
    operations: tuple[str, ...] = ()
    """Types of the operations it is about; empty: all but ``besides``."""
    besides: tuple[str, ...] = ()
    """Types of operations that it is not about."""
    when: Condition
    generations: Generations = Generations()
    """Of the Neural Engine; left out: all."""
    says: Text
    """The rule in words, as a clause."""
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _about_some(self) -> Self:
        if self.operations and self.besides:
            raise ValueError(f"{self.id}: expected operations or besides, received both")
        return self

    def refuses(self, facts: OperationFacts) -> str | None:
        """Return why the units refuse an operation; None: this rule has nothing against it."""
        kind = facts.operation.type
        if kind in self.besides or (self.operations and kind not in self.operations):
            return None
        found = self.when.finds(facts)
        if found is None:
            return None
        return f"{self.says}: {found}" if found else self.says


class Chip(_Strict):
    """Which Neural Engine a chip has."""

    generation: int = Field(ge=11, le=30)
    """``N`` of Apple's own name ``HN`` of the engine's architecture."""
    also: tuple[str, ...] = ()
    """Chips with the same one."""
    fast_int8: bool = False
    """Whether it multiplies int8 by int8 faster than float16."""


class Figure(_Strict):
    """A number of the planner's, with its source."""

    value: float = Field(gt=0)
    source: Source


class UnitCost(_Strict):
    """What a unit takes, as a round figure of its class."""

    gmacs_s: Figure
    """10^9 multiply-accumulates a second, in float16."""
    gbytes_s: Figure
    """10^9 bytes a second, of weights and activations."""
    enter_us: Figure | None = None
    """Microseconds to hand work over to it; left out: none."""


class Rules(_Strict):
    """The whole file."""

    schema_version: Literal[1]
    chips: dict[str, Chip] = Field(min_length=1)
    chips_source: Source
    planner: dict[Unit, UnitCost]
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        ids = [rule.id for rule in self.rules]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"expected each id once; twice: {', '.join(twice)}")
        if set(self.planner) != set(UNITS):
            raise ValueError(f"planner: expected {', '.join(UNITS)}; received {', '.join(self.planner)}")
        if any("cpu" in rule.units for rule in self.rules):
            raise ValueError("rules: the CPU takes everything; expected gpu or neural_engine")
        return self

    def chip_names(self) -> tuple[str, ...]:
        """Every chip, in the order of the file."""
        return tuple(name for key, chip in self.chips.items() for name in (key, *chip.also))

    def chip(self, name: str) -> Chip:
        """Return a chip.

        Raises:
            TargetError: There is no such chip; the message names the nearest.
        """
        for key, chip in self.chips.items():
            if name in (key, *chip.also):
                return chip
        raise TargetError(f"unknown chip {name!r}. {nearest(name, self.chip_names())}")

    def for_chip(self, name: str | None) -> tuple[Rule, ...]:
        """Return the rules that hold on a chip; None: on any of the known ones.

        Raises:
            TargetError: There is no such chip.
        """
        chips = self.chips.values() if name is None else (self.chip(name),)
        generations = {chip.generation for chip in chips}
        return tuple(rule for rule in self.rules if any(map(rule.generations.includes, generations)))

    def chips_of(self, rule: Rule) -> tuple[str, ...]:
        """Return the chips that a rule is about, variants left out."""
        return tuple(name for name, chip in self.chips.items() if rule.generations.includes(chip.generation))


@cache
def load_rules() -> Rules:
    """Read the rules that come with edgekit.

    Raises:
        ToolError: The file is damaged.
    """
    text = files(__package__).joinpath("rules.yaml").read_text(encoding="utf-8")
    return read_rules(text)


def read_rules(text: str) -> Rules:
    """Read rules.

    Args:
        text: YAML.

    Raises:
        ToolError: It is no YAML, or holds no rules.
    """
    try:
        return Rules.model_validate(parse_yaml(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise ToolError(f"the placement rules cannot be read: {error}") from error
