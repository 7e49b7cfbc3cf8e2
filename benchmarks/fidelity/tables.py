"""results/fidelity.md: the aims, the errors by core, and every row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fidelity.errors import Estimate


def write_tables(result: dict[str, Any], estimates: Sequence[Estimate], path: Path) -> None:
    """Write everything that a reader looks for first."""
    parts = [_aims(result["aims"]), _summaries(result), _memory(result.get("memory", {})), _rows(estimates)]
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


def _aims(aims: Sequence[dict[str, Any]]) -> str:
    lines = ["| aim | reached | met |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {aim['aim']} | {aim['reached']} | {'yes' if aim['met'] else 'no'} |" for aim in aims])


def _summaries(result: dict[str, Any]) -> str:
    lines = ["| engine | layer / anchoring / precision / standing | rows | median | 90 % | largest | mean |"]
    lines.append("| --- " * 7 + "|")
    for engine in ("xnnpack", "ncnn"):
        for name, found in result.get(engine, {}).get("summary", {}).items():
            errors = " | ".join(f"{found[key]:.1%}" for key in ("median", "p90", "max"))
            lines.append(f"| {engine} | {name} | {found['rows']} | {errors} | {found['mean_signed']:+.1%} |")
    return "\n".join(lines)


def _memory(result: dict[str, Any]) -> str:
    """One line a board: what tinymembench measured, and what the simulated core reaches."""
    if not result:
        return ""
    lines = ["| board | core | copied, GB/s | filled, GB/s | random read of 16 MiB, ns over L1 |", "| --- " * 5 + "|"]
    for row in result["rows"]:
        cells = [f"{row['simulated'][kind]:g} for {row[kind]:g} ({row['errors'][kind]:+.0%})" for kind in row["errors"]]
        lines.append(f"| {row['target']} | {row['core']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(estimates: Sequence[Estimate]) -> str:
    """One line a published row; development rows are marked."""
    columns = [(layer, anchored) for layer in ("static", "trace", "macs") for anchored in (False, True)][:-2]
    columns.append(("macs", True))
    names = [f"{layer}{', anchored' if anchored else ''}" for layer, anchored in columns]
    lines = ["| engine | device | core | network | published, ms | " + " | ".join(names) + " |"]
    lines.append("| --- " * (5 + len(columns)) + "|")
    cells: dict[tuple[str, ...], dict[tuple[str, bool], Estimate]] = {}
    for each in estimates:
        cells.setdefault((each.engine, each.device, each.core, each.network), {})[each.layer, each.anchored] = each
    for key, row in cells.items():
        first = next(iter(row.values()))
        mark = " (development)" if first.standing == "development" else ""
        texts = [f"{row[c].estimate_ms:.1f} ({row[c].error:+.0%})" if c in row else "" for c in columns]
        lines.append(f"| {' | '.join(key)}{mark} | {first.published_ms:g} | " + " | ".join(texts) + " |")
    return "\n".join(lines)
