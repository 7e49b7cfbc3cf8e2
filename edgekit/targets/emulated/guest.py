"""Start a program on the guest under qemu with the counting plugin, within limits, and say where it died if it does."""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from edgekit.errors import MissingToolError, StageCrashError, StageTimeoutError, ToolError
from edgekit.targets.emulated.counts import Boundary, CountStatus, read_counts

if TYPE_CHECKING:
    from edgekit.targets.emulated.persona import Persona
    from edgekit.targets.emulated.setup import Toolchain

EXIT_LIMIT: Final = 97
EXIT_TRACE_LOST: Final = 98
_LIVE: Final = struct.Struct("<8s4I2Q")
_LIVE_MAGIC: Final = b"EKLIVE01"
_PHASES: Final = ("starting", "loading the model", "warming up", "running the model", "ending, after the counted run")
_QEMU_OWN_BYTES: Final = 512 << 20
"""Address space that qemu needs for itself beside the guest; version 7.2 takes 280 MiB."""
_TAIL_CHARACTERS: Final = 2000
_READER_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestLimits:
    """What a guest may use before it is stopped.

    Attributes:
        instructions: Executed instructions, loading and warm-up included; None: no limit. Looked at every 20 ms.
        seconds: Wall-clock time.
        memory_bytes: The guest's own address space.
    """

    instructions: int | None = None
    seconds: float = 600.0
    memory_bytes: int = 6 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A function whose every call begins a new segment.

    Attributes:
        library: File that holds it.
        offset: Of its first instruction from the address where the file is loaded.
        name: For messages.
    """

    library: Path
    offset: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSink:
    """A program that reads the trace stream on its standard input while the guest runs.

    Attributes:
        command: Program and arguments.
    """

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPlace:
    """Where a guest is, or was when it ended.

    Attributes:
        phase: 0 start, 1 load, 2 warm-up, 3 counted run, 4 after it.
        segment: The current segment of the counted run.
        boundary: What began it.
        value: The boundary's value: for a watch, its place among the watches.
        instructions: Executed since the start; up to 20 ms old.
    """

    phase: int
    segment: int
    boundary: Boundary
    value: int
    instructions: int

    def describe(self, watches: Sequence[Watch]) -> str:
        """Return the place in words, such as ``running the model, segment 12 (a call of xnn_run_operator)``."""
        words = _PHASES[self.phase]
        if self.phase != 3:
            return words
        begun = {Boundary.MARKER: f"marker {self.value}", Boundary.SYSCALL: f"system call {self.value}"}
        if self.boundary is Boundary.WATCH and self.value < len(watches):
            begun[Boundary.WATCH] = f"a call of {watches[self.value].name}"
        detail = f" ({begun[self.boundary]})" if self.boundary in begun else ""
        return f"{words}, segment {self.segment}{detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestRun:
    """A guest that ended by itself.

    Attributes:
        counts: The plugin's count file; `edgekit.targets.emulated.counts.read_counts` reads it.
        exit_code: Of the guest's program, 0 to 255.
        stdout: All that it wrote.
        stderr: All that it, qemu and the plugin wrote.
        seconds: Wall-clock time.
        trace_output: Standard output of the trace's reader; empty without one.
    """

    counts: Path
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    trace_output: str = ""


class GuestCrashError(StageCrashError):
    """The guest was ended by a signal.

    Args:
        message: What happened, and the way out.
        place: Where it was; None where that is not known.
        log: Where its output is.
    """

    def __init__(self, message: str, *, place: GuestPlace | None, log: str) -> None:
        super().__init__(message, stage="emulate", log=log)
        self.place = place


def run_guest(
    toolchain: Toolchain,
    persona: Persona,
    command: Sequence[str],
    *,
    work_dir: Path,
    limits: GuestLimits,
    library_path: Sequence[Path] = (),
    watch: Sequence[Watch] = (),
    trace: TraceSink | None = None,
    whole: bool = False,
    segment_syscall: int | None = None,
    repeatable: bool = True,
    environment: Mapping[str, str] | None = None,
) -> GuestRun:
    """Run an aarch64 program behind a persona, and count what it executes.

    The guest sees none of this process's environment, so that counts do not depend on it.

    Args:
        toolchain: qemu and the plugin.
        persona: The processor that the guest sees.
        command: Program and arguments; the program is a path on this machine.
        work_dir: Holds ``counts.bin``, ``stdout.txt`` and ``stderr.txt`` afterwards; made if it is not there.
        limits: When to stop it.
        library_path: Folders with the guest's shared libraries.
        watch: Functions whose calls begin segments.
        trace: Reader of the trace stream; None: no trace.
        whole: Count the whole program where it sets no markers.
        segment_syscall: Number of a system call that begins a segment.
        repeatable: Make the guest's life the same every time: a clock that only its own calls move on (times that it
            measures mean nothing), random numbers from a fixed seed, ``work_dir`` as its current folder, and every
            path that the command names reached through a link of fixed length in it. Lengths of paths and random
            addresses would else decide where the heap puts things, and in which order tables of pointers are walked.
        environment: More variables of the guest.

    Raises:
        GuestCrashError: A signal ended the guest; the message says where it was.
        StageTimeoutError: A limit stopped it.
        MissingToolError: qemu or the trace's reader is not there.
        ToolError: There is no such program, qemu refused to start, or the trace's reader failed.
    """
    if not Path(command[0]).is_file():  # qemu itself ends without a word
        raise ToolError(f"expected the guest's program at {command[0]}; there is none", stage="emulate")
    work_dir.mkdir(parents=True, exist_ok=True)
    counts = work_dir / "counts.bin"
    counts.unlink(missing_ok=True)
    switches = {"whole": int(whole), "repeatable": int(repeatable), "segment_syscall": segment_syscall}
    plugin = _plugin_argument(toolchain.plugin, counts, watch, {"limit": limits.instructions, **switches})
    seen = _Links(work_dir) if repeatable else None
    folders = [seen.reach(folder) if seen else str(folder.absolute()) for folder in library_path]
    start = _Start(
        prefix=(str(toolchain.qemu), "-L", str(persona.root), "-cpu", persona.qemu_cpu),
        plugin=plugin,
        command=tuple(seen.rewrite(argument) for argument in command) if seen else tuple(command),
        environment={"LC_ALL": "C", "PATH": "/usr/bin:/bin", **_library_variable(folders), **(environment or {})},
        work_dir=work_dir,
        folder=work_dir if repeatable else None,
        limits=limits,
    )
    started = time.monotonic()
    returned, reader_output = _run_to_end(start, trace)
    run = GuestRun(
        counts=counts,
        exit_code=max(returned, 0),
        stdout=_read(work_dir / "stdout.txt"),
        stderr=_read(work_dir / "stderr.txt"),
        seconds=time.monotonic() - started,
        trace_output=reader_output,
    )
    _judge_end(returned, run, watch, limits, log=str(work_dir / "stderr.txt"))
    return run


def read_place(counts: Path) -> GuestPlace | None:
    """Return where the guest that writes this count file is, also while it runs; None before the plugin started."""
    try:
        content = counts.with_name(counts.name + ".live").read_bytes()
    except FileNotFoundError:
        return None
    if len(content) < _LIVE.size:
        return None
    magic, phase, segment, kind, _, value, instructions = _LIVE.unpack_from(content)
    if magic != _LIVE_MAGIC:
        return None
    return GuestPlace(phase=phase, segment=segment, boundary=Boundary(kind), value=value, instructions=instructions)


def _library_variable(folders: Sequence[str]) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}


class _Links:
    """Links to folders, in the guest's current folder, under names whose lengths do not depend on where these lie."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir.absolute()
        self._known: dict[Path, str] = {}

    def reach(self, folder: Path) -> str:
        """Return a folder's short name."""
        target = folder.absolute()
        if target == self._work_dir:
            return "."
        if target not in self._known:
            name = f"folder{len(self._known)}"
            link = self._work_dir / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            self._known[target] = name
        return self._known[target]

    def rewrite(self, argument: str) -> str:
        """Return an argument of the command; an absolute path goes through the link of its folder."""
        path = Path(argument)
        if not path.is_absolute() or not path.parent.is_dir():
            return argument
        if path == self._work_dir:
            return "."
        return f"{self.reach(path.parent)}/{path.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """How to start the guest."""

    prefix: tuple[str, ...]
    plugin: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    work_dir: Path
    folder: Path | None
    limits: GuestLimits


def _plugin_argument(plugin: Path, counts: Path, watch: Sequence[Watch], switches: Mapping[str, int | None]) -> str:
    """Return the value of qemu's ``-plugin``; a comma inside a value is doubled, as qemu wants it."""
    values = [str(plugin.absolute()), f"out={counts.absolute()}"]
    # the loader maps the file that a link leads to, and the plugin knows modules by the name of the mapped file
    values += [f"watch={one.library.resolve().name}+0x{one.offset:x}" for one in watch]
    values += [f"{name}={value}" for name, value in switches.items() if value]
    return ",".join(value.replace(",", ",,") for value in values)


def _run_to_end(start: _Start, trace: TraceSink | None) -> tuple[int, str]:
    """Run the guest, and the reader of its trace; nothing of either is left behind, however this ends."""
    if trace is None:
        with _started(start, start.plugin, ()) as guest:
            return _wait(guest, start), ""
    with ExitStack() as stack:
        read_end, write_end = os.pipe()
        stack.callback(_close, read_end)
        stack.callback(_close, write_end)
        output = stack.enter_context((start.work_dir / "trace_output.txt").open("wb"))
        complaints = stack.enter_context((start.work_dir / "trace_errors.txt").open("wb"))
        reader = stack.enter_context(_reader(trace, read_end, output, complaints))
        os.close(read_end)  # else a reader that dies would not break the pipe
        plugin = f"{start.plugin},trace=/proc/self/fd/{write_end}"
        with _started(start, plugin, (write_end,)) as guest:
            os.close(write_end)  # else the reader would wait for us after the guest has ended
            returned = _wait(guest, start)
        _finish_reader(reader, start, guest_failed=returned not in (0, EXIT_TRACE_LOST))
    return returned, _read(start.work_dir / "trace_output.txt")


@contextmanager
def _reader(
    trace: TraceSink, read_end: int, output: IO[bytes], complaints: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(trace.command, stdin=read_end, stdout=output, stderr=complaints)
    except OSError as error:
        raise MissingToolError(f"the reader of the trace cannot be started: {error}", stage="emulate") from error
    try:
        yield process
    finally:
        _stop(process)


@contextmanager
def _started(start: _Start, plugin: str, pass_fds: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    with (start.work_dir / "stdout.txt").open("wb") as out, (start.work_dir / "stderr.txt").open("wb") as err:
        try:
            guest = subprocess.Popen(
                (*start.prefix, *(("-seed", "1") if start.folder else ()), "-plugin", plugin, *start.command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=start.environment,
                cwd=start.folder,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise MissingToolError(f"qemu cannot be started: {error}", stage="emulate") from error
    try:
        _limit_memory(guest.pid, start.limits.memory_bytes)
        yield guest
    finally:
        _stop(guest)


def _limit_memory(pid: int, memory_bytes: int) -> None:
    limit = memory_bytes + _QEMU_OWN_BYTES
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
    except ProcessLookupError:  # ended already; its exit code will tell
        return


def _wait(guest: subprocess.Popen[bytes], start: _Start) -> int:
    try:
        return guest.wait(start.limits.seconds)
    except subprocess.TimeoutExpired as error:
        place = read_place(start.work_dir / "counts.bin")
        _stop(guest)
        raise StageTimeoutError(
            f"the guest ran longer than {start.limits.seconds:g} s and was stopped"
            f"{f' while {place.describe(())}, after {place.instructions:,} instructions' if place else ''}. "
            "Raise the time limit if the program is only slow.",
            stage="emulate",
            log=str(start.work_dir / "stderr.txt"),
        ) from error


def _finish_reader(reader: subprocess.Popen[bytes], start: _Start, *, guest_failed: bool) -> None:
    try:
        code = reader.wait(_READER_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StageTimeoutError(
            f"the reader of the trace did not end within {_READER_SECONDS:g} s of the guest's end", stage="emulate"
        ) from error
    if code != 0 and not guest_failed:  # a guest that failed cuts the stream, and its own error says more
        said = _read(start.work_dir / "trace_errors.txt")[-_TAIL_CHARACTERS:].strip()
        raise ToolError(f"the reader of the trace failed with code {code}: {said}", stage="emulate")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started, if it still runs, and take its exit code: no zombie stays."""
    if process.poll() is None:
        try:
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except ProcessLookupError:  # ended in between
            pass
    process.wait()


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # closed already
        return


def _judge_end(returned: int, run: GuestRun, watch: Sequence[Watch], limits: GuestLimits, *, log: str) -> None:
    place = read_place(run.counts)
    if place is None or (returned > 0 and not run.counts.is_file()):  # the plugin writes it when a guest exits
        said = (run.stderr or run.stdout)[-_TAIL_CHARACTERS:].strip()  # qemu says some things on standard output
        raise ToolError(
            f"qemu did not start the guest: {said or f'exit code {returned}'}",
            stage="emulate",
            log=log,
        )
    if returned < 0:
        raise GuestCrashError(_describe_crash(-returned, place, watch, limits, run), place=place, log=log)
    if returned in (EXIT_LIMIT, EXIT_TRACE_LOST) and run.counts.is_file():
        status = read_counts(run.counts).status
        if status is CountStatus.LIMIT:
            raise StageTimeoutError(
                f"the guest was stopped at its limit of {limits.instructions:,} instructions while "
                f"{place.describe(watch)}. It may loop for ever; raise the limit if it only has much to do.",
                stage="emulate",
                log=log,
            )
        if status is CountStatus.TRACE_LOST:
            raise ToolError("the reader of the trace ended before the guest did", stage="emulate", log=log)


def _describe_crash(number: int, place: GuestPlace, watch: Sequence[Watch], limits: GuestLimits, run: GuestRun) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hints = {
        signal.SIGILL: "The program uses an instruction that this processor does not have.",
        signal.SIGKILL: "Something stopped it from outside; often that is the machine running out of memory.",
        signal.SIGABRT: f"It gave up by itself; the memory limit was {limits.memory_bytes >> 20} MiB.",
    }
    hint = hints.get(signal.Signals(number)) if name.startswith("SIG") else None
    said = run.stderr[-_TAIL_CHARACTERS:].strip()
    return (
        f"the guest died of {name} while {place.describe(watch)}, after about {place.instructions:,} instructions."
        f"{f' {hint}' if hint else ''}{f' It said: {said}' if said else ''}"
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
