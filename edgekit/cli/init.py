"""``edgekit init``: a starter recipe, or one for PyTorch and one for Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.output import say

NAME = "init"

STARTER = """\
# yaml-language-server: $schema=recipe.schema.json      (edgekit recipe schema > recipe.schema.json)
schema_version: 1
name: {name}
model: {model}          # package.module:callable returning the model, or a model file
{framework}data:
  module: {data}        # returns an edgekit.data.Dataset; or npz: FILE, images: FOLDER, csv: FILE
train: {{epochs: 20, batch_size: 64, optimizer: adamw, lr: 1e-3, seed: 0}}
compress:
  - quantize: {{precision: int8, mode: qat, epochs: 3}}
export:
  - {{format: tflite,     precision: [fp32, int8]}}
  - {{format: executorch, precision: [fp32, int8]}}
  - {{format: coreml,     precision: [fp16, int8], minimum_deployment_target: iOS17}}
verify:  {{max_accuracy_drop: 0.01, samples: 256}}
profile: {{targets: [host], num_threads: 1}}
budgets:
  - {{artifact: "*/int8", size: 4 MiB}}
"""


def run(
    path: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    model: Annotated[
        str | None,
        typer.Option("--model", help="package.module:callable, or a model file (default: my_model:build)."),
    ] = None,
    data: Annotated[str, typer.Option("--data", help="package.module:callable returning a Dataset.")] = "my_data:load",
    name: Annotated[str | None, typer.Option("--name", help="Name of the build.")] = None,
    both: Annotated[
        bool,
        typer.Option("--both", help="Write a pair, RECIPE_pytorch.yaml and RECIPE_keras.yaml, to be compared."),
    ] = False,
    model_pytorch: Annotated[
        str | None, typer.Option("--model-pytorch", help="With --both: the PyTorch model (default: from --model).")
    ] = None,
    model_keras: Annotated[
        str | None, typer.Option("--model-keras", help="With --both: the Keras model (default: from --model).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a starter recipe with the keys that most models need.

    With --both, write the same journey for the same model in PyTorch and in Keras.
    """
    from edgekit.errors import RecipeError
    from edgekit.recipe.pair import model_pair

    base = name or path.absolute().parent.name
    if not both:
        if model_pytorch or model_keras:
            raise RecipeError("--model-pytorch and --model-keras belong to --both; write --model, or add --both.")
        text = STARTER.format(name=base, model=model or "my_model:build", data=data, framework="")
        _write({path: text}, force=force)
        say(f"wrote {path}; next: edgekit build {path} --dry-run")
        return
    models = model_pair(model, pytorch=model_pytorch, keras=model_keras)
    recipes = {framework: path.with_name(f"{path.stem}_{framework}{path.suffix}") for framework in models}
    texts = {
        recipes[framework]: STARTER.format(
            name=f"{base}-{framework}", model=source, data=data, framework=f"framework: {framework}\n"
        )
        for framework, source in models.items()
    }
    _write(texts, force=force)
    builds = " ".join(f"builds/{base}-{framework}" for framework in models)
    say(
        f"wrote {' and '.join(str(recipe) for recipe in texts)}: the same journey, but for model. Next:\n"
        + "".join(f"  edgekit build {recipe}\n" for recipe in texts)
        + f"  edgekit compare {builds} --html comparison.html"
    )


def _write(texts: dict[Path, str], *, force: bool) -> None:
    """Check every recipe and every place before the first is written."""
    from edgekit.errors import OutputError
    from edgekit.recipe.load import parse_recipe_text
    from edgekit.store.atomic import write_text

    for path, text in texts.items():
        if path.exists() and not force:
            raise OutputError(f"{path} exists; choose another name, or --force to overwrite it.")
        parse_recipe_text(text, str(path))
    for path, text in texts.items():
        write_text(path, text)
