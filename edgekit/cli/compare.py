"""``edgekit compare``: two builds, two artifacts, or a program and an artifact side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.options import ComputeChoice, Json, NumThreads

if TYPE_CHECKING:
    from edgekit.pipeline.compare import CompareRequest

NAME = "compare"


def run(
    first: Annotated[
        Path, typer.Argument(help="A build folder, a manifest, an artifact, or a program (.pt2).", show_default=False)
    ],
    second: Annotated[
        Path | None,
        typer.Argument(help="Another; left out with --artifact: the program it was made of.", show_default=False),
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option("--artifact", help="Builds: compare this artifact of them (coreml/fp16).", show_default=False),
    ] = None,
    operators: Annotated[
        bool, typer.Option("--operators", help="Core ML: also compare what each operation gives.")
    ] = False,
    compute: Annotated[
        ComputeChoice | None,
        typer.Option("--compute", help="Core ML: evaluate in this arithmetic.", show_default="as the artifact says"),
    ] = None,
    inputs: Annotated[Path | None, typer.Option("--inputs", help="Artifacts: a .npz with input_0, input_1 …")] = None,
    num_threads: NumThreads = 1,
    html: Annotated[Path | None, typer.Option("--html", help="Builds: also write both as one page here.")] = None,
    json: Json = False,
) -> None:
    """Put two builds (figures of each) or two artifacts (outputs, and times taken by turns) side by side.

    A Core ML artifact can also be held against its program, operation by operation, on any machine:
    `edgekit compare BUILD_DIR --artifact coreml/fp16 --operators`, `edgekit compare PROGRAM.pt2 X.mlpackage`.
    """
    from edgekit.pipeline.compare import CompareRequest
    from edgekit.pipeline.operands import find_operands, is_artifact_or_program

    if artifact is None and second is not None and not is_artifact_or_program(first):
        _compare_builds(first, second, html, json=json)
        return
    one, other = find_operands(first, second, artifact)
    request = CompareRequest(
        first=one,
        second=other,
        inputs=inputs,
        operators=operators,
        compute=None if compute is None else compute.value,
        num_threads=num_threads,
    )
    _compare_artifacts(request, json=json)


def _compare_builds(first: Path, second: Path, html: Path | None, *, json: bool) -> None:
    from edgekit.cli.output import print_json, print_table, say
    from edgekit.report.compare import compare_builds
    from edgekit.report.compare_html import render_comparison
    from edgekit.report.tables import compare_table, facts_table
    from edgekit.store.atomic import write_text
    from edgekit.store.manifest import read_manifest

    before, after = read_manifest(first), read_manifest(second)
    comparison = compare_builds(before, after)
    if html is not None:
        write_text(html, render_comparison(before, after))
        say(f"wrote {html}")
    if json:
        print_json(comparison)
    else:
        print_table(facts_table(comparison), compare_table(comparison))


def _compare_artifacts(request: CompareRequest, *, json: bool) -> None:
    from edgekit.cli.output import print_json, print_table
    from edgekit.pipeline.compare import compare_artifacts, comparison_row
    from edgekit.report.tables import artifact_comparison_table, operator_distance_table, output_parity_table

    found = compare_artifacts(request)
    if json:
        print_json(found)
        return
    timing = None if found.runs is None else found.runs.timing
    medians = (None, None) if timing is None else (timing.median_a_ms, timing.median_b_ms)
    rows = [comparison_row(found.first), comparison_row(found.second)]
    print_table(artifact_comparison_table(rows, medians))
    if found.runs is None:
        print_table(f"not run: {found.not_run}")
        return
    print_table(output_parity_table(found.runs.parity))
    if found.runs.operators is not None:
        print_table(operator_distance_table(found.runs.operators))
    if timing is None:
        print_table(f"not timed: {found.not_timed}")
        return
    print_table(
        f"second / first: {timing.ratio:.3f} (95 % interval {timing.ratio_low:.3f} to {timing.ratio_high:.3f}, "
        f"{timing.rounds} rounds of {timing.runs_per_round} runs by turns)"
    )
