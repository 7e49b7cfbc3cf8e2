"""``edgekit profile``: one artifact on one target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Json, ModelChoice, NumRuns, NumThreads, WarmupRuns

NAME = "profile"


def run(
    artifact: Annotated[
        Path | None, typer.Argument(help="A .tflite, .pte, .mlpackage or .onnx.", show_default=False)
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="The device, or ssh:user@host[:port] for any machine that ssh reaches.")
    ] = "host",
    num_runs: NumRuns = 50,
    warmup_runs: WarmupRuns = 10,
    num_threads: NumThreads = 1,
    profile_ops: Annotated[bool, typer.Option("--profile-ops", help="Also time each operator.")] = False,
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="A .npz with input_0, input_1 …: real samples.")
    ] = None,
    model: Annotated[
        ModelChoice | None,
        typer.Option("--model", help="Emulated targets: counts only, or time by the core's tables or its trace."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Measure anew.")] = False,
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            help="A result.json of the bundled app or of measure.py, instead of measuring; a list with --json. With "
            "ARTIFACT and --inputs its outputs are compared too.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Time an artifact on a device, count it on an emulated one, or predict it: latency, counts, memory, operators."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.errors import UserInputError
    from edgekit.pipeline.import_profile import import_profiles
    from edgekit.pipeline.profile import profile_artifact
    from edgekit.records import ProfileConfig
    from edgekit.report.tables import profile_table, profiled_operators_table

    if imported:
        found = import_profiles(imported, artifact=artifact, inputs=inputs, target=target if target != "host" else None)
        if json:
            print_json(found)
        else:
            print_table(profile_table(found))
        return
    if artifact is None:
        raise UserInputError("expected an artifact to profile, or --import with the result of a measurement")
    config = ProfileConfig(num_runs=num_runs, warmup_runs=warmup_runs, num_threads=num_threads, profile_ops=profile_ops)
    layer = model.value if model is not None else None
    profile = profile_artifact(artifact, target, config, inputs=inputs, use_cache=not no_cache, model=layer)
    if json:
        print_json(profile)
        return
    print_table(profile_table([profile]))
    if profile_ops and profile.operators:
        print_table(profiled_operators_table(profile))
