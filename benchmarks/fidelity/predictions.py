"""Estimates for the published rows.

XNNPACK's rows go through `profile_emulated`, which is what `edgekit profile` calls. ncnn's go through the parts of
`edgekit emulate`, so that one counted run serves all devices of a core, and one trace all cores with the same kernels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fidelity import guests
from benchmarks.fidelity.rows import FOLDER, Key, Row
from edgekit.errors import EdgekitError
from edgekit.formats import format_spec
from edgekit.records import EmulatedProfile, ProfileConfig
from edgekit.store.cache import cache_root
from edgekit.targets.devices import load_device, packaged_targets
from edgekit.targets.emulated.artifact_run import GuestJob
from edgekit.targets.emulated.cores import core_text, load_core
from edgekit.targets.emulated.coresim import PlacedCore
from edgekit.targets.emulated.counted import counted_run
from edgekit.targets.emulated.counts import Counts, read_counts
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.place import place_of
from edgekit.targets.emulated.reads import estimator_of
from edgekit.targets.emulated.run import profile_emulated
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.spec import EmulatedDevice
from edgekit.targets.emulated.static_model import estimate_static, stored_working_sets
from edgekit.targets.emulated.timing import TracedRun, trace_together
from edgekit.targets.emulated.trace_model import prepare_trace
from edgekit.targets.schema import ProfileRequest

LAYERS = ("static", "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What the models say of the rows.

    Attributes:
        milliseconds: Layer -> row -> estimate. Rows whose program failed are not there.
        instructions: Row -> instructions of one inference, exact.
        problems: What could not be run, and why.
    """

    milliseconds: dict[str, dict[Key, float]]
    instructions: dict[Key, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def device(target: str) -> EmulatedDevice:
    """Load a device file: this benchmark's own, else the packaged one."""
    own = FOLDER / "targets" / f"{target}.yaml"
    found = load_device(own if own.is_file() else packaged_targets() / f"{target}.yaml")
    if not isinstance(found, EmulatedDevice):
        raise TypeError(f"expected an emulated device, received {target} of kind {found.kind}")
    return found


def placed_core(target: str) -> PlacedCore:
    """Return the core that profiles of a device run on, at its place."""
    found = device(target)
    return PlacedCore(load_core(found.primary_cluster.core), place_of(found))


def predict(tools: Toolchain, rows: Sequence[Row], layers: Sequence[str] = LAYERS) -> Predictions:
    """Estimate rows, network by network; everything that was run is kept and read again the next time."""
    found = Predictions(milliseconds={layer: {} for layer in layers})
    for engine, network in dict.fromkeys((row.engine, row.network) for row in rows):
        of_network = [row for row in rows if (row.engine, row.network) == (engine, network)]
        try:
            if engine == "xnnpack":
                _profile(tools, of_network, layers, found)
            else:
                _emulate(tools, of_network, layers, found)
        except (RuntimeError, EdgekitError) as error:
            found.problems.append(f"{engine} {network}: {error}")
            sys.stderr.write(f"{found.problems[-1]}\n")
    return found


def _profile(tools: Toolchain, rows: Sequence[Row], layers: Sequence[str], found: Predictions) -> None:
    if "trace" in layers:
        _trace_together(tools, rows)
    for row in rows:
        for layer in layers:
            sys.stderr.write(f"{row.engine} {row.network}: {layer} of {row.device}\n")
            profile = profile_artifact(guests.xnnpack_model(row.network), row.target, layer)
            found.instructions[row.key] = profile.instructions
            if profile.latency_ms is not None:
                found.milliseconds[layer][row.key] = profile.latency_ms.unanchored


def _trace_together(tools: Toolchain, rows: Sequence[Row]) -> None:
    """Trace once for all devices whose cores execute the same kernels; `profile_artifact` finds the cycles."""
    groups: dict[str, list[tuple[GuestJob, TracedRun]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            phone, placed = device(row.target), placed_core(row.target)
            request = _request(guests.xnnpack_model(row.network), row.target, "trace", "tflite", Path(folder))
            job = GuestJob(request=request, tools=tools, persona=make_persona(placed.core, tools))
            run = counted_run(job)
            kernels = read_counts(run.counts_file).fingerprint(guests.LIBRARIES["tflite"])
            wanted = TracedRun(run=run, placed=placed, estimator=estimator_of(phone, "trace"))
            groups[kernels].append((job, wanted))
        for group in groups.values():
            names = ", ".join(wanted.placed.core.name for _, wanted in group)
            sys.stderr.write(f"xnnpack {rows[0].network}: one trace for {names}\n")
            trace_together(group[0][0], [wanted for _, wanted in group])


def profile_artifact(artifact: Path, target: str, layer: str, format_name: str = "tflite") -> EmulatedProfile:
    """Profile an artifact on a device."""
    with tempfile.TemporaryDirectory() as folder:
        return profile_emulated(_request(artifact, target, layer, format_name, Path(folder)))


def _request(artifact: Path, target: str, layer: str, format_name: str, folder: Path) -> ProfileRequest:
    spec = format_spec(format_name)
    return ProfileRequest(
        artifact=artifact,
        artifact_id=artifact.stem,
        format=spec.name,
        open_session=spec.open_session,
        reference=None,
        device=device(target).model_dump(mode="json"),
        config=ProfileConfig(),
        work_dir=folder,
        model=layer,  # type: ignore[arg-type]
        inspect=spec.inspect,
    )


def _emulate(tools: Toolchain, rows: Sequence[Row], layers: Sequence[str], found: Predictions) -> None:
    network = _Network(tools, rows)
    found.instructions.update(network.instructions())
    for layer in layers:
        found.milliseconds[layer].update(network.estimates(layer))


class _Network:
    """The rows of one of ncnn's networks: their cores, and a counted run for each core."""

    def __init__(self, tools: Toolchain, rows: Sequence[Row]) -> None:
        network = rows[0].network
        self._tools = tools
        self._work = cache_root() / "benchmarks" / "fidelity-work" / f"ncnn-{network}"
        self._work.mkdir(parents=True, exist_ok=True)
        self._program = guests.ncnn_program(network)
        self._label = f"ncnn {network}"
        self._rows = {row.device: row for row in rows}
        self._placed = {row.device: placed_core(row.target) for row in rows}
        self._files: dict[str, Path] = {}
        for core in {placed.core.name: placed.core for placed in self._placed.values()}.values():
            sys.stderr.write(f"{self._label} on {core.name}\n")
            self._files[core.name] = guests.kept_run(tools, make_persona(core, tools), self._program)

    def instructions(self) -> dict[Key, int]:
        steady = {core: read_counts(file).steady_instructions for core, file in self._files.items()}
        return {self._rows[name].key: steady[placed.core.name] for name, placed in self._placed.items()}

    def estimates(self, layer: str) -> dict[Key, float]:
        found: dict[Key, float] = {}
        for names in self._groups(layer):
            placed = [self._placed[name] for name in names]
            cycles = self._kept(layer, placed)
            found |= {
                self._rows[name].key: each / core.place.cycles_per_ms
                for name, core, each in zip(names, placed, cycles, strict=True)
            }
        return found

    def _groups(self, layer: str) -> Iterable[list[str]]:
        """Devices that one simulation is of: those of a core; for a trace, of all cores that executed the same."""
        groups: dict[str, list[str]] = defaultdict(list)
        prints = {core: _fingerprint(file) if layer == "trace" else core for core, file in self._files.items()}
        for name, placed in self._placed.items():
            groups[prints[placed.core.name]].append(name)
        return groups.values()

    def _kept(self, layer: str, placed: Sequence[PlacedCore]) -> list[float]:
        file = self._files[placed[0].core.name]
        digest = hashlib.sha256(self._tools.coresim.read_bytes() + file.read_bytes())
        for each in placed:
            digest.update(core_text(each.core, each.place).encode())
        path = cache_root() / "benchmarks" / "fidelity-cycles" / f"{layer}-{digest.hexdigest()[:20]}.json"
        if not path.is_file():
            sys.stderr.write(f"{self._label}: {layer} for {', '.join(each.core.name for each in placed)}\n")
            cycles = [estimate.cycles for estimate in self._simulate(layer, read_counts(file), placed)]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(cycles))
        kept: list[float] = json.loads(path.read_text())
        return kept

    def _simulate(self, layer: str, counts: Counts, placed: Sequence[PlacedCore]) -> Sequence[Any]:
        if layer == "static":
            return estimate_static(
                counts,
                placed,
                coresim=self._tools.coresim,
                work_dir=self._work,
                working_sets=stored_working_sets(counts),
            )
        model = prepare_trace(counts, placed, coresim=self._tools.coresim, work_dir=self._work)
        persona = make_persona(placed[0].core, self._tools)
        shutil.rmtree(self._work / "run", ignore_errors=True)
        guests.run_fresh(self._tools, persona, self._program, self._work / "run", trace=model.sink)
        return model.read()


def _fingerprint(file: Path) -> str:
    """Return the digest of what the engine's own library executed; read once, as it takes a second."""
    kept = file.with_name("fingerprint.txt")
    if not kept.is_file():
        kept.write_text(read_counts(file).fingerprint(*guests.LIBRARIES.values()))
    return kept.read_text()
