"""Read a budgets file: limits and tolerances kept apart from the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgekit.budget.baseline import Tolerances
from edgekit.recipe.load import read_document, validate_document
from edgekit.recipe.schema import Budget, Section


class BudgetsFile(Section):
    """``edgekit check --budgets FILE``, whole."""

    schema_version: Literal[1]
    budgets: tuple[Budget, ...] | None = None
    """Replace those of the recipe; where the key is absent the recipe's hold."""
    regression: Tolerances = Tolerances()
    """What the comparison with ``--baseline`` allows."""


def load_budgets(path: Path) -> BudgetsFile:
    """Read and check a budgets file.

    Raises:
        RecipeError: Missing file, not YAML, unknown key, wrong type, wrong unit, or a newer schema.
    """
    document = read_document(path, what="budgets file", hint="It holds `schema_version: 1` and `budgets: [...]`.")
    return validate_document(BudgetsFile, document, str(path), what="budgets file")
