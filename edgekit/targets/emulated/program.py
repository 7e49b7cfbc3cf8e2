"""Run and count any aarch64 program behind a device's persona: what ``edgekit emulate`` does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from edgekit.errors import TargetError, ToolError, UserInputError
from edgekit.records import InstructionCounts, LatencyEstimateMs, ModelLayer
from edgekit.targets.emulated.bands import Layer, band_of, read_bands
from edgekit.targets.emulated.calibration import anchoring, read_anchors
from edgekit.targets.emulated.classes import count_classes
from edgekit.targets.emulated.cores import judged_name, load_core
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.counts import Boundary, Counts, CountStatus, read_counts
from edgekit.targets.emulated.guest import GuestLimits, GuestRun, TraceSink, run_guest
from edgekit.targets.emulated.guest_root import guest_root, require_aarch64
from edgekit.targets.emulated.persona import Persona, make_persona
from edgekit.targets.emulated.place import CycleEstimate, place_of
from edgekit.targets.emulated.reads import estimator_of
from edgekit.targets.emulated.setup import Toolchain, toolchain
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.targets.emulated.static_model import estimate_static, stored_working_sets
from edgekit.targets.emulated.symbols import read_symbols
from edgekit.targets.emulated.trace_model import prepare_trace
from edgekit.targets.estimates import estimate
from edgekit.targets.schema import Device

SCHEMA_VERSION: Final = 1
_FUNCTIONS_KEPT: Final = 50
_SAID_CHARACTERS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRequest:
    """A program to run on an emulated device.

    Attributes:
        command: The program, a path below ``root`` or on this machine, and its arguments.
        device: The device, of the kind ``emulated``.
        root: Folder that the guest sees as ``/``, under the persona's processor files; None: the cross compiler's.
        library_path: Folders with the program's shared libraries.
        environment: Variables of the guest.
        limits: When to stop it.
        model: ``counts`` (no time), ``static`` or ``trace``.
    """

    command: tuple[str, ...]
    device: Device
    root: Path | None = None
    library_path: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: GuestLimits = field(default_factory=GuestLimits)
    model: ModelLayer = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCount:
    """What one function executed itself, without what it calls."""

    name: str
    library: str
    instructions: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedProgram:
    """What a program executed.

    Attributes:
        region: ``marked`` (between the program's own markers) or ``whole`` (from its start to its end).
        instructions: In the region, exactly, where one thread ran.
        total_instructions: Of the process until the region's end.
        load_instructions: Between the program's markers LOAD_BEGIN and LOAD_END; 0 without them.
        threads: Threads that executed anything in the region; one of them is counted.
        counts: The region's instructions by class, and bytes moved.
        functions: The largest first.
        named_share: Share of the instructions whose function has a name.
        model: Which layer gave the time.
        cycles: Modelled; None for ``counts``.
        latency_ms: Of the region, with its band; None for ``counts``.
        stdout, stderr: What the program wrote.
        notes: What a reader must know.
    """

    schema_version: int = SCHEMA_VERSION
    kind: str = "emulated_program"
    command: tuple[str, ...]
    target: str
    core: str
    region: str
    instructions: int
    total_instructions: int
    load_instructions: int
    threads: int
    counts: InstructionCounts
    functions: tuple[FunctionCount, ...]
    named_share: float
    model: ModelLayer
    cycles: float | None = None
    latency_ms: LatencyEstimateMs | None = None
    stdout: str = ""
    stderr: str = ""
    notes: tuple[str, ...] = ()


def run_program(request: ProgramRequest) -> EmulatedProgram:
    """Run a program on the guest, count it, and estimate its time.

    A program that sets markers (``targets/native/marker.h``) is counted between them, any other from start to end.

    Raises:
        TargetError: The device is not an emulated one.
        UserInputError: There is no such program, or it is not for aarch64.
        UnsupportedError: The tools are not set up here.
        ToolError: The program failed, crashed, or ran into a limit.
    """
    device = request.device
    if not isinstance(device, EmulatedDevice):
        raise TargetError(
            f"expected an emulated target; {device.name!r} is of the kind {device.kind!r}. "
            "`edgekit targets list` shows the emulated ones."
        )
    tools = toolchain()
    placed = PlacedCore(core=load_core(device.primary_cluster.core), place=place_of(device))
    with _prepared(request, make_persona(placed.core, tools)) as (persona, command, work):
        session = _Session(request=request, tools=tools, persona=persona, command=command, work=work)
        run, counts = session.count()
        cycles = session.model(counts, placed)
    return _report(request, device, placed, counts, cycles, run)


@contextmanager
def _prepared(request: ProgramRequest, persona: Persona) -> Iterator[tuple[Persona, tuple[str, ...], Path]]:
    if not request.command:
        raise UserInputError("expected a program after `--`; received none")
    with tempfile.TemporaryDirectory(prefix="edgekit-emulate-") as folder:
        work = Path(folder)
        root = guest_root(persona.root, request.root, work / "root") if request.root is not None else persona.root
        program = require_aarch64(request.command[0], request.root)
        yield replace(persona, root=root), (str(program), *request.command[1:]), work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """One program behind one persona; run once to count, once more to trace."""

    request: ProgramRequest
    tools: Toolchain
    persona: Persona
    command: tuple[str, ...]
    work: Path

    def count(self) -> tuple[GuestRun, Counts]:
        """Run and count."""
        run = self._run("counts", whole=True, trace=None)
        if run.exit_code != 0:
            raise ToolError(
                f"{self.request.command[0]} ended with status {run.exit_code} on the guest, so its counts say "
                f"nothing. It wrote: {(run.stderr or run.stdout)[-2000:].strip() or 'nothing'}",
                stage="emulate",
            )
        counts = read_counts(run.counts)
        if counts.status is not CountStatus.COMPLETE:
            raise ToolError(
                f"{self.request.command[0]} ended inside the region that its marker STEADY_BEGIN began: "
                "it must set STEADY_END too",
                stage="emulate",
            )
        return run, counts

    def model(self, counts: Counts, placed: PlacedCore) -> CycleEstimate | None:
        """Estimate the region's cycles with the layer that was asked for."""
        if self.request.model == "counts":
            return None
        folder = self.work / "model"
        folder.mkdir()
        if self.request.model == "static":
            sets = stored_working_sets(counts)
            (found,) = estimate_static(counts, [placed], coresim=self.tools.coresim, work_dir=folder, working_sets=sets)
            return found
        trace = prepare_trace(counts, [placed], coresim=self.tools.coresim, work_dir=folder)
        self._run("trace", whole=not _is_marked(counts), trace=trace.sink)
        return trace.read()[0]

    def _run(self, name: str, *, whole: bool, trace: TraceSink | None) -> GuestRun:
        return run_guest(
            self.tools,
            self.persona,
            self.command,
            work_dir=self.work / name,
            limits=self.request.limits,
            library_path=self.request.library_path,
            trace=trace,
            whole=whole,
            repeatable=False,  # a program of the user's: it sees its own folder and a real clock
            environment=self.request.environment,
        )


def _is_marked(counts: Counts) -> bool:
    return bool(counts.boundaries) and counts.boundaries[0] == (Boundary.BEGIN, 1)


def _report(
    request: ProgramRequest,
    device: EmulatedDevice,
    placed: PlacedCore,
    counts: Counts,
    cycles: CycleEstimate | None,
    run: GuestRun,
) -> EmulatedProgram:
    symbols = read_symbols(counts, twin_folders=request.library_path)
    executed = symbols.instructions(counts)
    total = counts.steady_instructions
    largest = np.argsort(-executed.astype(np.int64), kind="stable")[:_FUNCTIONS_KEPT].tolist()
    latency, notes = _latency(device, placed, cycles)
    return EmulatedProgram(
        command=request.command,
        target=device.name,
        core=placed.core.name,
        region="marked" if _is_marked(counts) else "whole",
        instructions=total,
        total_instructions=counts.total_instructions,
        load_instructions=counts.load_instructions,
        threads=counts.threads,
        counts=count_classes(counts),
        functions=tuple(
            FunctionCount(
                name=symbols.names[index],
                library=counts.modules[symbols.modules[index]].name if symbols.modules[index] >= 0 else "",
                instructions=int(executed[index]),
                share=int(executed[index]) / total if total else 0.0,
            )
            for index in largest
            if executed[index]
        ),
        named_share=symbols.named_share(counts),
        model=request.model,
        cycles=None if cycles is None else cycles.cycles,
        latency_ms=latency,
        stdout=run.stdout[-_SAID_CHARACTERS:],
        stderr=run.stderr[-_SAID_CHARACTERS:],
        notes=(*_count_notes(counts), *notes),
    )


def _count_notes(counts: Counts) -> Iterator[str]:
    if not counts.exact:
        yield "threads were created in the counted region: the counts are not exact; run the program with one thread"
    elif counts.threads > 1:
        yield (
            f"{counts.threads} threads executed something in the counted region; counts and time are of the one that "
            "set the marker"
        )
    if not _is_marked(counts):
        yield "the program sets no markers: loading and ending are counted too"


def _latency(
    device: EmulatedDevice, placed: PlacedCore, cycles: CycleEstimate | None
) -> tuple[LatencyEstimateMs | None, tuple[str, ...]]:
    if cycles is None:
        return None, ()
    layer: Layer = "static" if cycles.model == "static" else "trace"
    anchors = anchoring(read_anchors(device.name), layer, estimator_of(device, layer))
    band = band_of(read_bands(), judged_name(placed.core), layer, anchored=bool(anchors.anchors))
    notes = (
        "the static model's memory term is of what vector instructions store, twice; what the program only reads, such "
        "as weights, is not in it",
    )
    found = estimate(cycles.milliseconds(placed.place), anchors.factor, anchors.anchors, band)
    return found, (*anchors.notes, *(notes if layer == "static" else ()))
