"""The plugs: what a framework, a format and a target kind must provide, and nothing more.

A plug is a folder with a light ``spec.py`` (data, and ``module:function`` strings for the heavy parts, which are
imported in a child process only). The siblings carry the same file names:

========== ==================================================================
axis       files of each folder
========== ==================================================================
frameworks ``spec.py load.py train.py prune.py distil.py quantize.py to_program.py``
formats    ``spec.py export.py session.py operators.py inspect.py``
targets    ``spec.py run.py`` (and ``machine.py`` where a machine is described)
========== ==================================================================
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from edgekit.errors import ToolError
from edgekit.records import (
    FormatName,
    FrameworkName,
    HalfPrecision,
    Operator,
    OperatorTime,
    Precision,
    ProfileKind,
    RuntimeInfo,
    TensorSpec,
    WeightCompression,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def load_entry(entry: str) -> Callable[..., Any]:
    """Import ``package.module:function``.

    Raises:
        ToolError: The module or the function does not exist (a broken plug, not a user's mistake).
    """
    module_name, _, attribute = entry.partition(":")
    module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ToolError(f"entry point {entry!r} names nothing callable")
    return found  # type: ignore[no-any-return]


def list_specs(package: str, folders: Sequence[str]) -> Iterator[Any]:
    """Yield the ``SPEC`` of every plug in a package: each sub-folder's light ``spec.py``, in the order of names.

    Args:
        package: Dotted name of the package.
        folders: Its ``__path__``.
    """
    for module in sorted(pkgutil.iter_modules(list(folders)), key=lambda module: module.name):
        if module.ispkg:
            yield importlib.import_module(f"{package}.{module.name}.spec").SPEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A cell of the capability table that cannot work: why, and what to use instead."""

    reason: str
    instead: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """One way of a format to execute.

    Attributes:
        name: ``xnnpack``, ``coreml``, ``portable``, ``default``.
        programs: Artifact precision -> the precision of the program that it is lowered from.
        refusals: Artifact precision -> why not. Every precision is in exactly one of the two.
        not_here: Why this machine cannot execute it (``None``: it can).
        not_timed_here: Why a clock on this machine would say nothing of it, though its values are computed here
            (``None``: it can be timed).
    """

    name: str
    programs: Mapping[Precision, Precision]
    refusals: Mapping[Precision, Refusal]
    not_here: str | None = None
    not_timed_here: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """How one artifact's weights will be stored.

    Attributes:
        name: What the artifact is called after the plus sign (``w4+palette-g16``); empty: by its precision alone.
        program: Precision of the program that it is lowered from.
        compression: With every choice made; None: the format knows one way only.
        judged_as: The precision whose limits it is held to; None: its own.
    """

    name: str
    program: Precision
    compression: WeightCompression | None
    judged_as: Precision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSpec:
    """A format: what it can hold, and where its functions are.

    Attributes:
        name: The format's name in recipes.
        title: Its name for people.
        suffix: Of the artifact's path.
        backends: The first is the default.
        delegate: Name of the accelerated backend in coverage figures.
        distributions: Installed packages whose versions decide the artifact's bytes.
        options: Keys of a recipe's export rule that this format understands besides the common ones.
        export: ``ExportRequest -> ExportResult``; writes ``request.output``.
        open_session: ``(path, num_threads) -> Session``.
        inspect: ``path -> Inspection``, from the artifact alone.
        extra: The pip extra that installs it.
        dynamic_batch: Whether an artifact can take any batch size, or why not.
        place: ``PlacementRequest -> Placement``: which unit of a chip takes which operation; None: nobody can say.
        ask_placement: The same as the runtime of this machine answers; None: it cannot be asked here.
        open_trace: ``(path, compute) -> Tracer``: what each operation of an artifact gives; None: it cannot be told.
        open_program_trace: ``path -> Tracer``: the same of a program (``.pt2``), as the exporter hands it on, with the
            names that it hands on.
        open_session_with_compute: ``(path, num_threads, compute) -> Session`` of an evaluator that rounds to float16 as
            asked; None: the format has none.
        analyse_half_precision: ``(path, samples, compute) -> HalfPrecision``; a sample is one array an input, with a
            batch of one. None: the format has no such evaluator.
        plan_weights: ``(CompressionRule | None, precision, program, minimum_deployment_target) -> WeightPlan``, a light
            function that refuses what cannot work; None: weights are stored in one way only.
    """

    name: FormatName
    title: str
    suffix: str
    backends: tuple[BackendSpec, ...]
    delegate: str
    distributions: tuple[str, ...]
    export: str
    open_session: str
    inspect: str
    extra: str
    options: tuple[str, ...] = ()
    dynamic_batch: Refusal | None = None
    place: str | None = None
    ask_placement: str | None = None
    open_trace: str | None = None
    open_program_trace: str | None = None
    open_session_with_compute: str | None = None
    analyse_half_precision: str | None = None
    plan_weights: str | None = None

    def backend(self, name: str | None) -> BackendSpec | None:
        """Return the named backend, the first for None; None when there is no such backend."""
        if name is None:
            return self.backends[0]
        return next((backend for backend in self.backends if backend.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkSpec:
    """A framework: which sources it reads, and where its functions are.

    Attributes:
        suffixes: Of the files that it reads.
        distributions: Installed packages whose versions decide what a build makes.
        describe: ``ModelRequest -> SourceModel``.
        train: ``TrainRequest -> TrainResult``.
        to_program: ``ProgramRequest -> Program``.
        extra: The pip extra that installs it.
        folder_marker: A folder that holds a file of this name is a source of this framework; None: it reads files only.
        own_scales: Suffixes of files that may be quantized already; whether samples are needed to fix scales is known
            only when they are read.
        imports: A Python module that imports one of these packages holds models of this framework.
        launcher: The module and its arguments that start the training child when it uses several devices
            (``{devices}`` stands for how many); empty: one process drives all of them.
        programs: ``(format, artifact precision)`` -> precision of the program that the artifact is made from,
            where it is another one than the format's backend says.
        refusals: Compression step (``cluster``), setting of one (``quantize.unsupported``) or artifact precision -> why
            this framework cannot do it.
    """

    name: FrameworkName
    title: str
    suffixes: tuple[str, ...]
    distributions: tuple[str, ...]
    describe: str
    train: str
    to_program: str
    extra: str
    folder_marker: str | None = None
    own_scales: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    programs: Mapping[tuple[FormatName, Precision], Precision] = field(default_factory=dict)
    refusals: Mapping[str, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """A kind of target: what its device files hold, and where its functions are.

    Attributes:
        kind: The word in ``kind:`` of a device file.
        title: Its name for people.
        device: ``module:class`` of the pydantic model of its device files, a light module.
        profile: ``ProfileRequest -> Profile``, run in a child process.
        diagnose: ``Device -> Diagnosis``: can it be reached from here?
        setup: ``(report, offline=) -> anything``: fetches and builds what the kind needs; None: it needs nothing.
        kinds: Which kinds of number the target gives: one, unless it depends on the machine that asks.
        figures: Names of the budget figures that its profiles answer.
        runs: ``(format, backend)`` that it can run; None: whatever this machine runs.
        why_not: Why it runs nothing else, as a clause (``Core ML exists on Apple systems only``).
        refuses: ``(Device, format, backend) -> why it cannot be profiled there from here, None: it can``, where that
            depends on the device or on this machine; a light function. None: ``runs`` says it all.
        one_thread: Why profiles with several threads are refused, and the way out; None: they are not.
        reads: ``Device -> JSON-ready``: what decides a profile besides the artifact and the device file (versions,
            tables, stored measurements), a light function; None: nothing does.
        address: ``text -> Device``: the device that ``--target kind:text`` names without a device file, a light
            function; None: there is no such form.
    """

    kind: str
    title: str
    device: str
    profile: str
    diagnose: str
    setup: str | None = None
    kinds: tuple[ProfileKind, ...] = ("measured",)
    figures: tuple[str, ...] = ("latency_p50", "latency_p95", "peak_memory")
    runs: tuple[tuple[FormatName, str], ...] | None = None
    why_not: str = ""
    refuses: str | None = None
    one_thread: Refusal | None = None
    reads: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an exporter knows that the file alone does not say.

    Attributes:
        operators: Operators with the partitioner's reasons; None when ``inspect`` finds out as much.
        notes: Sentences for the report (a workaround that was applied, an input dtype that changed).
        half_precision: What float16 does to the artifact; None where it does not compute in it, or nobody looked.
    """

    operators: tuple[Operator, ...] | None = None
    notes: tuple[str, ...] = ()
    half_precision: HalfPrecision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an artifact says of itself."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[Operator, ...]
    partitions: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """A loaded artifact, ready to run.

    Inputs are fed as the source model takes them (dtype, layout); the session casts where the artifact differs (int64
    to int32, float to quantized) and refuses what would lose values. Runs are independent: state that a runtime keeps
    between invocations is reset.

    ``load_ms`` is what the runtime itself took to load and prepare, in milliseconds: opening a session may also read
    the file for what edgekit wants to know of it, which no user of the runtime pays for. None: it does nothing else.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: RuntimeInfo
    load_ms: float | None

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs, quantized ones as real numbers (float32).

        Raises:
            DataError: An input has the wrong shape or dtype.
            ToolError: The runtime failed.
        """
        ...

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], None]:
        """Feed the inputs and return a function that only executes: what a latency measurement calls."""
        ...

    def operator_times(self, inputs: Sequence[Array], num_runs: int) -> tuple[OperatorTime, ...]:
        """Time each operator of the runtime, averaged over ``num_runs``.

        Raises:
            UnsupportedError: The runtime cannot tell.
        """
        ...

    def close(self) -> None:
        """Free the runtime's memory."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedValue:
    """One floating-point result of one operation, of one run.

    Attributes:
        name: Of the result, as it is called there.
        origin: The same without what a converter added to it: what it was called in the program.
        type: Of the operation, in the words of the artifact or program; ``input``: what was fed.
        layer: Dotted path of the model's layer that it was recorded in; None where nothing says so.
        value: float32 or float64.
        reads: Names of the results that it reads, those that were not traced left out.
    """

    name: str
    origin: str
    type: str
    layer: str | None
    value: Array
    reads: tuple[str, ...]


class Tracer(Protocol):
    """An artifact or a program, of which every floating-point result can be seen."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def trace(self, inputs: Sequence[Array]) -> tuple[TracedValue, ...]:
        """Run once and return every floating-point result, in the order of execution.

        Raises:
            DataError: An input has the wrong shape or dtype.
            ToolError: An operation failed.
        """
        ...

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once and return the outputs; see ``Session.run``."""
        ...


class ClosesOnExit(ABC):
    """What every session of ours is: closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
