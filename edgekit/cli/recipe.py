"""``edgekit recipe``: about recipes themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The recipe's schema, and checking a recipe.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes: point an editor at it for completion."""
    import json
    import sys

    from edgekit.recipe import Recipe

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a value: train.epochs=1.")] = None,
) -> None:
    """Check a recipe's keys, types and units, and print it as resolved."""
    import sys

    import yaml

    from edgekit.recipe import load_recipe

    resolved = load_recipe(recipe, changes or ())
    yaml.safe_dump(resolved.model_dump(mode="json", exclude_none=True), sys.stdout, sort_keys=False)
