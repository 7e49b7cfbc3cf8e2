"""``edgekit compare``: two builds or two artifacts side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Json, NumThreads

NAME = "compare"


def run(
    first: Annotated[Path, typer.Argument(help="A build folder, a manifest or an artifact.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another of the same sort.", show_default=False)],
    inputs: Annotated[Path | None, typer.Option("--inputs", help="Artifacts: a .npz with input_0, input_1 …")] = None,
    num_threads: NumThreads = 1,
    html: Annotated[Path | None, typer.Option("--html", help="Builds: also write both as one page here.")] = None,
    json: Json = False,
) -> None:
    """Put two builds (figures of each) or two artifacts (outputs, and times taken by turns) side by side."""
    if first.suffix in (".tflite", ".pte", ".onnx", ".mlpackage"):
        _compare_artifacts(first, second, inputs, num_threads, json=json)
    else:
        _compare_builds(first, second, html, json=json)


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


def _compare_artifacts(first: Path, second: Path, inputs: Path | None, num_threads: int, *, json: bool) -> None:
    from edgekit.cli.output import print_json, print_table
    from edgekit.pipeline.compare import CompareRequest, compare_artifacts
    from edgekit.report.tables import artifact_comparison_table, output_parity_table

    found = compare_artifacts(CompareRequest(first=first, second=second, inputs=inputs, num_threads=num_threads))
    if json:
        print_json(found)
        return
    timing = None if found.runs is None else found.runs.timing
    rows = [
        (
            str(report.path),
            report.format,
            report.size_bytes,
            len(report.operators),
            None if report.coverage is None else report.coverage.operators,
        )
        for report in (found.first, found.second)
    ]
    medians = (None, None) if timing is None else (timing.median_a_ms, timing.median_b_ms)
    print_table(artifact_comparison_table(rows, medians))
    if found.runs is None or timing is None:
        print_table(f"not run: {found.not_run}")
        return
    print_table(output_parity_table(found.runs.parity))
    print_table(
        f"second / first: {timing.ratio:.3f} (95 % interval {timing.ratio_low:.3f} to {timing.ratio_high:.3f}, "
        f"{timing.rounds} rounds of {timing.runs_per_round} runs by turns)"
    )
