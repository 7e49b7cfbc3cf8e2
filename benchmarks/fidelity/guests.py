"""Programs for the guest and their counted runs, each run once: kept in the cache folder until what made it changes."""

from __future__ import annotations

import hashlib
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.fidelity import mobilenets
from benchmarks.fidelity.ncnn import networks, setup
from edgekit.contracts import load_entry
from edgekit.formats import format_spec
from edgekit.store.cache import cache_root
from edgekit.targets.emulated.guest import GuestLimits, GuestRun, TraceSink, run_guest
from edgekit.targets.emulated.persona import Persona
from edgekit.targets.emulated.runner import RunnerRequest, guest_command, runtime_of
from edgekit.targets.emulated.setup import Toolchain

LIMITS = GuestLimits(seconds=3600)
LIBRARIES = {
    "tflite": "libLiteRt.so",
    "executorch": "libexecutorch_backend_xnnpack.so",
    "ncnn": f"ncnn.cpython-{setup.PYTHON.replace('.', '')}-aarch64-linux-gnu.so",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the guest is started with.

    Attributes:
        command: Program and arguments.
        key: Digest of the program and of the network.
    """

    command: tuple[str, ...]
    key: str
    library_path: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def models() -> Path:
    """Return the folder of the networks."""
    return cache_root() / "benchmarks" / "fidelity-networks"


def xnnpack_model(network: str) -> Path:
    """Return the TFLite file of one of XNNPACK's networks; a name that ends in ``_int8`` is the quantized one."""
    name = network.removesuffix("_int8")
    return mobilenets.ensure(name, "int8" if name != network else "fp32", models())


def artifact_program(toolchain: Toolchain, format_name: str, model: Path, work_dir: Path) -> Program:
    """Return the runner's command for an artifact, its inputs (noise) written below ``work_dir``."""
    spec = format_spec(format_name)
    inspection = load_entry(spec.inspect)(model)
    request = RunnerRequest(
        runtime=runtime_of(spec.name),
        model=model,
        inputs=inspection.inputs,
        outputs=inspection.outputs,
        work_dir=work_dir,
        operators=False,
    )
    generator = np.random.default_rng(0)
    sample = [generator.uniform(-1, 1, tensor.shape).astype(np.float32) for tensor in inspection.inputs]
    return Program(
        command=tuple(guest_command(toolchain, request, [sample])),
        key=_digest([toolchain.runners[request.runtime].read_bytes(), model.read_bytes()]),
        library_path=toolchain.libraries[request.runtime],
    )


def ncnn_program(network: str) -> Program:
    """Return the guest Python's command for one of ncnn's networks."""
    root = setup.ensure()
    script = Path(__file__).parent / "ncnn" / "guest_program.py"
    parameters = networks.ensure(network, models())
    side = networks.INPUT_SIDES.get(network, networks.INPUT_SIDE)
    return Program(
        command=(str(setup.interpreter(root)), str(script), str(parameters), str(side)),
        key=_digest([setup.NCNN.encode(), script.read_bytes(), parameters.read_bytes()]),
        library_path=(setup.libraries(root),),
        environment=setup.environment(root),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A run and the CPU seconds that it took, its helpers' included."""

    run: GuestRun
    cpu_seconds: float


def run_fresh(
    toolchain: Toolchain, persona: Persona, program: Program, work_dir: Path, trace: TraceSink | None = None
) -> Spent:
    """Run a program and count its marked inference.

    Raises:
        RuntimeError: The program failed on the guest; the message ends with what it said.
    """
    before = cpu_seconds()
    run = run_guest(
        toolchain,
        persona,
        program.command,
        work_dir=work_dir,
        limits=LIMITS,
        library_path=program.library_path,
        environment=program.environment,
        trace=trace,
    )
    if run.exit_code:
        raise RuntimeError(f"{' '.join(program.command)} ended with {run.exit_code}: {run.stderr[-500:]}")
    return Spent(run=run, cpu_seconds=cpu_seconds() - before)


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def kept_run(toolchain: Toolchain, persona: Persona, program: Program) -> Path:
    """Return the count file of a program on a persona, from an earlier run where there was one."""
    key = _digest([toolchain.plugin.read_bytes(), toolchain.qemu_version.encode(), persona.key.encode()])
    folder = cache_root() / "benchmarks" / "fidelity-runs" / f"{program.key}-{key}"
    if not (folder / "counts.bin").is_file():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run_fresh(toolchain, persona, program, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    return folder / "counts.bin"


def _digest(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:20]
