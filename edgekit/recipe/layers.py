"""Which layers a rule means: by name, pattern or type. A rule that matches nothing is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgekit.errors import RecipeError, nearest


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer as rules see it: its dotted path and the class name of its module."""

    name: str
    type: str


def select_layers(layers: Sequence[LayerInfo], rules: Iterable[str], place: str) -> dict[str, str]:
    """Find the layers that rules mean.

    Grammar of a rule: ``type:Linear`` means every layer of that class; a text with ``*``, ``?`` or ``[`` is a pattern
    over dotted names (``features.*``); any other text is a name and means the layer and everything inside it.
    A layer that several rules mean is attributed to the most exact: name before pattern before type.

    Args:
        layers: All layers of the model, containers included.
        rules: As written by the user.
        place: Where they were written, such as ``compress.quantize.skip``; errors name it.

    Returns:
        Layer name -> the rule that picked it.

    Raises:
        RecipeError: A rule matches no layer.

    Example:
        >>> select_layers([LayerInfo("stem", "Conv2d"), LayerInfo("head", "Linear")], ["type:Linear"], "skip")
        {'head': 'type:Linear'}
    """
    picked: dict[str, str] = {}
    for rule in sorted(rules, key=_exactness):
        matched = [layer.name for layer in layers if _matches(layer, rule)]
        if not matched:
            kinds = {f"type:{layer.type}" for layer in layers}
            names = kinds if rule.startswith("type:") else {layer.name for layer in layers if layer.name}
            raise RecipeError(f"{place}: the rule {rule!r} matches no layer. {nearest(rule, names)}")
        for name in matched:
            picked.setdefault(name, rule)
    return picked


def _exactness(rule: str) -> int:
    if rule.startswith("type:"):
        return 2
    return 1 if any(sign in rule for sign in "*?[") else 0


def _matches(layer: LayerInfo, rule: str) -> bool:
    kind = _exactness(rule)
    if kind == 2:
        return layer.type == rule.removeprefix("type:")
    if kind == 1:
        return fnmatchcase(layer.name, rule)
    return layer.name == rule or layer.name.startswith(rule + ".")
