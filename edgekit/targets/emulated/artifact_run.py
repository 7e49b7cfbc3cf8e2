"""One guest run of an artifact: what it is fed, what it is started with, and what came out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.contracts import Session, load_entry
from edgekit.errors import ArtifactError, ToolError
from edgekit.process import emit
from edgekit.profile.feed import generated_inputs
from edgekit.records import RuntimeInfo, TensorSpec
from edgekit.targets.emulated.counts import Counts, CountStatus, read_counts
from edgekit.targets.emulated.guest import GuestLimits, TraceSink, Watch, run_guest
from edgekit.targets.emulated.persona import Persona
from edgekit.targets.emulated.runner import (
    PROFILER_SYSCALL,
    RunnerRequest,
    RunnerResult,
    guest_command,
    read_result,
    runtime_of,
)
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.symbols import operator_watches
from edgekit.targets.schema import ProfileRequest
from edgekit.verify.reference import load_arrays

Array = NDArray[np.generic]

WARMUP = 1
"""Inferences before the counted one: the first packs weights and allocates, every later one is the same."""
SAMPLES = 2
"""Samples of a reference whose outputs are compared: every inference under emulation costs seconds. Of generated
inputs there is one, which is counted too."""
LIMITS = GuestLimits(instructions=200_000_000_000, seconds=840.0)
"""A guest that ran so long loops: a large network has a few billion instructions an inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestJob:
    """An artifact, the tools and the face of the processor that it runs behind."""

    request: ProfileRequest
    tools: Toolchain
    persona: Persona

    @property
    def runtime(self) -> str:
        """The runtime's name on the guest."""
        return runtime_of(self.request.format)

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Folders with the runtime's libraries."""
        return self.tools.libraries.get(self.runtime, ())

    @property
    def twins(self) -> tuple[Path, ...]:
        """Folders with libraries that kept the names which others lost."""
        return self.tools.libraries.get("litert", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSide:
    """What this machine's session says of the artifact.

    Attributes:
        samples: Inputs, one tuple a sample.
        results: What this machine computes for them.
        references: Side (``source``, ``program``) -> outputs of the samples, where a reference tells.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    runtime: RuntimeInfo
    samples: tuple[tuple[Array, ...], ...]
    results: tuple[tuple[Array, ...], ...]
    references: dict[str, tuple[Array, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSide:
    """A guest run that ended well."""

    result: RunnerResult
    counts: Counts
    file: Path
    watches: tuple[Watch, ...]


def run_on_host(request: ProfileRequest) -> HostSide:
    """Load the artifact on this machine and run the samples.

    Raises:
        ArtifactError: The artifact or the reference cannot be read.
        ToolError: The runtime failed.
    """
    with load_entry(request.open_session)(request.artifact, 1) as session:
        samples, references = _feed(request, session)
        results = tuple(tuple(np.array(output) for output in session.run(sample)) for sample in samples)
        return HostSide(
            inputs=session.inputs,
            outputs=session.outputs,
            runtime=session.runtime,
            samples=samples,
            results=results,
            references=references,
        )


def run_on_guest(
    job: GuestJob,
    host: HostSide,
    work: Path,
    *,
    samples: Sequence[Sequence[Array]],
    operators: bool = True,
    profile_nodes: bool = False,
    trace: TraceSink | None = None,
) -> GuestSide:
    """Run the artifact behind the persona.

    Args:
        job: What to run.
        host: Its inputs and outputs.
        work: Scratch folder, emptied first.
        samples: To feed; the first is counted.
        operators: Whether the runtime is to list its operators, which takes another load and inference.
        profile_nodes: Whether ONNX Runtime's profiler tells its nodes apart.
        trace: Reader of the trace.

    Raises:
        UnsupportedError: The runtime lacks an operator, or has no runner here.
        ToolError: The guest crashed, looped, ran out of memory, or counted nothing.
    """
    emit({"type": "progress", "stage": "profile", "phase": work.name})
    shutil.rmtree(work, ignore_errors=True)
    runner = RunnerRequest(
        runtime=job.runtime,
        model=job.request.artifact,
        inputs=host.inputs,
        outputs=host.outputs,
        work_dir=work,
        warmup=WARMUP,
        operators=operators,
        profile_nodes=profile_nodes,
    )
    watches = operator_watches(job.runtime, job.libraries, twin_folders=job.twins)
    run = run_guest(
        job.tools,
        job.persona,
        guest_command(job.tools, runner, samples),
        work_dir=work,
        limits=LIMITS,
        library_path=job.libraries,
        watch=watches,
        trace=trace,
        segment_syscall=PROFILER_SYSCALL if profile_nodes else None,
    )
    result, counts = read_result(runner, run.exit_code, run.stderr), read_counts(run.counts)
    if counts.status is not CountStatus.COMPLETE or not counts.steady_instructions:
        state = counts.status.name.lower().replace("_", " ")
        raise ToolError(f"the guest ended, but its counts are not whole ({state})", stage="emulate")
    return GuestSide(result=result, counts=counts, file=run.counts, watches=watches)


def _feed(
    request: ProfileRequest, session: Session
) -> tuple[tuple[tuple[Array, ...], ...], dict[str, tuple[Array, ...]]]:
    """Return samples, and what the models said of them where a reference tells."""
    if request.reference is None:
        return (tuple(generated_inputs(session.inputs, request.config.seed)),), {}
    arrays = load_arrays(request.reference)
    names = [f"input_{index}" for index in range(len(session.inputs))]
    if not all(name in arrays and len(arrays[name]) for name in names):
        raise ArtifactError(
            f"{request.reference}: expected {', '.join(names)} with at least one sample; "
            f"received {', '.join(sorted(arrays)) or 'nothing'}"
        )
    count = min([SAMPLES, *(len(arrays[name]) for name in names)])
    samples = tuple(tuple(arrays[name][index : index + 1] for name in names) for index in range(count))
    return samples, dict(_references(arrays, len(session.outputs), count))


def _references(arrays: dict[str, Array], outputs: int, count: int) -> Iterator[tuple[str, tuple[Array, ...]]]:
    for side in ("source", "program"):
        names = [f"{side}_output_{index}" for index in range(outputs)]
        if all(name in arrays and len(arrays[name]) >= count for name in names):
            yield side, tuple(arrays[name][:count] for name in names)
