"""Recipes: the schema, loading, and the selection of layers by name, pattern or type."""

from __future__ import annotations

from edgekit.recipe.layers import LayerInfo, select_layers
from edgekit.recipe.load import load_recipe, parse_recipe
from edgekit.recipe.schema import Recipe

__all__ = ["LayerInfo", "Recipe", "load_recipe", "parse_recipe", "select_layers"]
