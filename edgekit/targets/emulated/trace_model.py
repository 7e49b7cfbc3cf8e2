"""The trace-driven latency model: coresim follows every block and access of the guest as it runs.

The guest streams into coresim through a pipe; nothing of the trace lies on disk. One stream serves every core that
executes the same kernels. coresim needs to know beforehand what each instruction does, so a counts run comes first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgekit.errors import ToolError
from edgekit.targets.emulated.coresim import PlacedCore, core_arguments
from edgekit.targets.emulated.counts import Counts
from edgekit.targets.emulated.decode import write_decode_table
from edgekit.targets.emulated.guest import TraceSink
from edgekit.targets.emulated.place import CycleEstimate

_LINE_BYTES: Final = 64
_COLUMNS: Final = (
    "cycles", "instructions", "l1_misses", "l2_misses", "memory_reads", "memory_writes", "tlb_misses", "table_walks",
    "mispredicted",
)  # fmt: skip
MAX_CORES: Final = 32


@dataclass(frozen=True, slots=True)
class TraceModel:
    """A simulation that waits for a guest's trace.

    Attributes:
        sink: What `edgekit.targets.emulated.guest.run_guest` is to stream into.
        output: Where coresim writes its result when the guest is done.
        cores: What it is of.
    """

    sink: TraceSink
    output: Path
    cores: tuple[PlacedCore, ...]

    def read(self) -> tuple[CycleEstimate, ...]:
        """Read the result after the guest's run; one estimate a core, in order.

        Raises:
            ToolError: There is no whole result.
        """
        return read_trace_result(self.output, self.cores)


def prepare_trace(counts: Counts, cores: Sequence[PlacedCore], *, coresim: Path, work_dir: Path) -> TraceModel:
    """Write what coresim needs for a run that executes the same code as ``counts``.

    Args:
        counts: Of a run of the same command on the same persona.
        cores: Up to 32 cores at their places.
        coresim: The host program.
        work_dir: For its files; exists.
    """
    if not 1 <= len(cores) <= MAX_CORES:
        raise ValueError(f"expected 1 to {MAX_CORES} cores, received {len(cores)}")
    table, output = work_dir / "words.decode", work_dir / "trace.json"
    write_decode_table(np.concatenate(counts.words), table)
    command = [str(coresim), "trace", "--decode", str(table), "--input", "-", "--output", str(output)]
    return TraceModel(TraceSink(command=(*command, *core_arguments(cores, work_dir))), output, tuple(cores))


def read_trace_result(path: Path, cores: Sequence[PlacedCore]) -> tuple[CycleEstimate, ...]:
    """Read coresim's result of a trace.

    Raises:
        ToolError: The file is missing, cut off, of other cores, or of a stream that was cut off.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ToolError(f"The core simulator left no readable result in {path}: {error}") from error
    if not document["complete"]:
        raise ToolError("The trace ended before the guest's counted run did; the guest stopped or was stopped early.")
    if [entry["core"] for entry in document["cores"]] != [placed.core.name for placed in cores]:
        raise ToolError(f"The core simulator's result {path} is of other cores than were asked for.")
    return tuple(
        _estimate(placed, entry["segments"], document["passes"] > 1)
        for placed, entry in zip(cores, document["cores"], strict=True)
    )


def _estimate(placed: PlacedCore, segments: list[list[int]], warm: bool) -> CycleEstimate:
    table = np.asarray(segments, dtype=np.float64).reshape(-1, len(_COLUMNS))
    column = {name: table[:, index] for index, name in enumerate(_COLUMNS)}
    reads, writes = (column[name] * _LINE_BYTES for name in ("memory_reads", "memory_writes"))
    return CycleEstimate(
        model="trace",
        core=placed.core.name,
        cycles=float(column["cycles"].sum()),
        cycles_by_segment=tuple(column["cycles"].tolist()),
        memory_read_bytes=float(reads.sum()),
        memory_write_bytes=float(writes.sum()),
        memory_bytes_by_segment=tuple((reads + writes).tolist()),
        warm=warm,
    )
