"""``edgekit profile``: one artifact on one target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Json, ModelChoice, NumRuns, NumThreads, WarmupRuns

NAME = "profile"


def run(
    artifact: Annotated[Path, typer.Argument(help="A .tflite, .pte, .mlpackage or .onnx.", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="The device.")] = "host",
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
    json: Json = False,
) -> None:
    """Time an artifact on a device, or count it on an emulated one: latency, instructions, memory, operators."""
    from edgekit.cli.output import print_json, print_table
    from edgekit.pipeline.profile import profile_artifact
    from edgekit.records import EmulatedProfile, ProfileConfig
    from edgekit.report.tables import emulated_operator_table, operator_time_table, profile_table

    config = ProfileConfig(num_runs=num_runs, warmup_runs=warmup_runs, num_threads=num_threads, profile_ops=profile_ops)
    layer = model.value if model is not None else None
    profile = profile_artifact(artifact, target, config, inputs=inputs, use_cache=not no_cache, model=layer)
    if json:
        print_json(profile)
        return
    print_table(profile_table([profile]))
    if isinstance(profile, EmulatedProfile):
        if profile_ops and profile.operators:
            print_table(emulated_operator_table(profile.operators))
    elif profile.operators:
        print_table(operator_time_table(profile.operators))
