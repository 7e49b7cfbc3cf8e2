"""``edgekit init``: a starter recipe."""

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
model: {model}          # package.module:callable returning the model, or a .pt2 / .onnx file
data:
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
    model: Annotated[str, typer.Option("--model", help="package.module:callable, or a model file.")] = "my_model:build",
    data: Annotated[str, typer.Option("--data", help="package.module:callable returning a Dataset.")] = "my_data:load",
    name: Annotated[str | None, typer.Option("--name", help="Name of the build.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a starter recipe with the keys that most models need."""
    from edgekit.errors import OutputError
    from edgekit.recipe.load import parse_recipe_text
    from edgekit.store.atomic import write_text

    if path.exists() and not force:
        raise OutputError(f"{path} exists; choose another name, or --force to overwrite it.")
    text = STARTER.format(name=name or path.absolute().parent.name, model=model, data=data)
    parse_recipe_text(text, str(path))
    write_text(path, text)
    say(f"wrote {path}; next: edgekit build {path} --dry-run")
