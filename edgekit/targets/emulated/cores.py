"""Core tables: what a processor core can do in a cycle (``targets/cores/*.yaml``), every number with its source.

A table may extend another (``extends: cortex-a76``) and then states only what differs. Numbers are never fitted to the
latencies of models; where nothing was published or measured, ``estimate:`` gives the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekit.errors import TargetError, nearest
from edgekit.strict_yaml import parse_yaml
from edgekit.targets.devices import core_folders, packaged_targets
from edgekit.targets.emulated.mnemonics import CLASSES
from edgekit.targets.emulated.place import CorePlace

MAX_PORTS: Final = 20
MAX_OPERATIONS: Final = 12
MAX_QUEUES: Final = 12
NO_QUEUE: Final = "none"
_KNOWN_FEATURES: Final = frozenset(
    {"fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid"}
    | {"asimdrdm", "lrcpc", "dcpop", "asimddp"}
)


_OPERATION: Final = re.compile(
    r"(?P<port>[A-Za-z]\w*)(?:\*(?P<cycles>[1-9]|[1-5]\d|6[0-4])|@(?P<delay>[1-9]|[1-5]\d|6[0-3]))?"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Sourced(_Strict):
    source: str | None = None
    """Key of the table's ``sources``."""
    estimate: str | None = None
    """In place of a source: the reason for an estimated value."""
    note: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.estimate is None):
            raise ValueError("expected either `source: KEY` or `estimate: reason`, received both or none")
        return self


class Number(_Sourced):
    """One number and where it is from."""

    value: float = Field(ge=0, le=1e6)


class ClassEntry(_Sourced):
    """The timing of one class of instructions."""

    latency: int = Field(ge=1, le=100)
    """Cycles from issue to result."""
    step: int = Field(default=0, ge=0, le=16)
    """Of a load to several registers: cycles from one register's result to the next one's."""
    forward: int | None = Field(default=None, ge=1, le=100)
    """Cycles from issue to the accumulator operand of the next multiply-accumulate; left out: ``latency``."""
    slots: int | None = Field(default=None, ge=1, le=32)
    """Dispatch slots (in an in-order core: issue slots); left out: one for each operation, in an in-order core one."""
    first: bool | None = None
    """In-order cores: it cannot be the second instruction of a pair; left out: it can."""
    uops: tuple[str, ...]
    """Operations: a port or group; ``*N`` where it keeps the port busy for N cycles; in-order cores: ``@N`` where it
    keeps the port, N cycles after it issued, from instructions that would issue then."""


class Canonical(_Strict):
    """What the persona of this core shows: its caches and clock, whatever board the estimate is for."""

    clock_mhz: Number
    l1d_kib: Number
    l1i_kib: Number
    l2_kib: Number
    l3_kib: Number | None = None


class Pipeline(_Strict):
    """Width and depth."""

    in_order: bool
    dispatch_width: Number
    retire_width: Number
    reorder_buffer: Number
    store_buffer: Number
    mispredict_penalty: Number
    taken_branch_bubble: Number


class MemorySide(_Strict):
    """Caches, prefetcher and translation; sizes come from the device, latencies are load-to-use cycles."""

    l1_ways: Number
    l1_outstanding: Number
    l2_ways: Number
    l2_latency: Number
    l2_bytes_per_cycle: Number
    l2_outstanding: Number
    l3_ways: Number
    l3_latency: Number
    l3_bytes_per_cycle: Number
    l3_outstanding: Number
    prefetch_streams: Number
    prefetch_trigger: Number
    prefetch_l1_lines: Number
    prefetch_l2_lines: Number
    prefetch_max_stride: Number
    prefetch_crosses_pages: Number
    first_tlb_entries: Number
    first_tlb_miss: Number
    second_tlb_entries: Number
    table_walk: Number


class CoreTable(_Strict):
    """One core, whole: tables that extend another are merged with it."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    extends: str | None = None
    sources: dict[str, str]
    implementer: int = Field(ge=0, le=0xFF)
    part: int = Field(ge=0, le=0xFFF)
    qemu_cpu: str
    features: tuple[str, ...]
    """As Linux names them in ``/proc/cpuinfo``."""
    canonical: Canonical
    pipeline: Pipeline
    queues: dict[str, Number]
    ports: dict[str, str]
    """Execution port -> the issue queue before it, or ``none``."""
    groups: dict[str, tuple[str, ...]] = {}
    dispatch_limits: dict[str, Number] = {}
    """Execution port -> operations for it that can be dispatched in one cycle; left out: as many as there are slots."""
    memory: MemorySide
    classes: dict[str, ClassEntry]

    @property
    def clock_mhz(self) -> float:
        """The persona's clock."""
        return self.canonical.clock_mhz.value

    @property
    def l1d_kib(self) -> int:
        """The persona's first-level data cache."""
        return int(self.canonical.l1d_kib.value)

    @property
    def l1i_kib(self) -> int:
        """The persona's first-level instruction cache."""
        return int(self.canonical.l1i_kib.value)

    @property
    def l2_kib(self) -> int:
        """The persona's second-level cache."""
        return int(self.canonical.l2_kib.value)

    @property
    def l3_kib(self) -> int | None:
        """The persona's third-level cache, None without one."""
        third = self.canonical.l3_kib
        return int(third.value) if third is not None and third.value else None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = [*self._unknown_names(), *self._bad_sources()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unknown_names(self) -> Iterator[str]:
        missing = [name for name in CLASSES if name not in self.classes]
        if missing:
            yield f"classes: no entry for {', '.join(missing)}"
        yield from _undeclared("classes", self.classes, CLASSES)
        yield from _undeclared("features", self.features, _KNOWN_FEATURES)
        if len(self.ports) > MAX_PORTS or len(self.queues) >= MAX_QUEUES:
            yield f"expected at most {MAX_PORTS} ports and {MAX_QUEUES - 1} queues"
        yield from _undeclared("ports", self.ports.values(), [*self.queues, NO_QUEUE])
        yield from _undeclared("dispatch_limits", self.dispatch_limits, self.ports)
        if self.dispatch_limits and self.pipeline.in_order:
            yield "expected `dispatch_limits` only in a core that issues out of order"
        for group, members in self.groups.items():
            yield from _undeclared(f"groups.{group}", members, self.ports)
        for name, entry in self.classes.items():
            yield from (f"classes.{name}: {problem}" for problem in self._bad_operations(entry))

    def _bad_operations(self, entry: ClassEntry) -> Iterator[str]:
        if len(entry.uops) > MAX_OPERATIONS:
            yield f"expected at most {MAX_OPERATIONS} operations, received {len(entry.uops)}"
        if entry.first and not self.pipeline.in_order:
            yield "expected `first` only in a core that issues in order"
        for text in entry.uops:
            yield from self._bad_operation(text)

    def _bad_operation(self, text: str) -> Iterator[str]:
        match = _OPERATION.fullmatch(text)
        if match is None:
            yield f"expected PORT, PORT*CYCLES with 1 to 64 cycles or PORT@DELAY with 1 to 63, received {text!r}"
            return
        name = match["port"]
        if name not in self.ports and name not in self.groups:
            yield f"port or group {name!r} is not declared. {nearest(name, [*self.ports, *self.groups])}"
        if match["delay"] and not self.pipeline.in_order:
            yield f"expected PORT@DELAY only in a core that issues in order, received {text!r}"

    def _bad_sources(self) -> Iterator[str]:
        for place, entry in self.entries():
            if entry.source is not None and entry.source not in self.sources:
                yield f"{place}: source {entry.source!r} is not declared. {nearest(entry.source, self.sources)}"

    def entries(self) -> Iterator[tuple[str, _Sourced]]:
        """Every number and class of the table with its dotted place."""
        parts: dict[str, BaseModel] = {"canonical": self.canonical, "pipeline": self.pipeline, "memory": self.memory}
        for part, model in parts.items():
            for name, value in model:
                if isinstance(value, Number):
                    yield f"{part}.{name}", value
        for queue, number in self.queues.items():
            yield f"queues.{queue}", number
        for port, number in self.dispatch_limits.items():
            yield f"dispatch_limits.{port}", number
        for name, entry in self.classes.items():
            yield f"classes.{name}", entry

    def ports_of(self, name: str) -> tuple[str, ...]:
        """The ports that a port's or group's name stands for."""
        return self.groups.get(name, (name,))


def _undeclared(place: str, names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{place}: {name!r} is not declared. {nearest(name, known)}"


def load_core(name: str, folder: Path | None = None) -> CoreTable:
    """Read a core table.

    A table of one's own that extends the packaged one of its own name changes what it says, and keeps the rest.

    Args:
        name: File name without ``.yaml``.
        folder: Where the tables lie; None: the project's first, then the user's, then those that come with edgekit.

    Raises:
        TargetError: There is no such table, or it breaks a rule; the message names the place.
    """
    return _load(name, core_folders() if folder is None else (folder,))


def judged_name(table: CoreTable) -> str:
    """Return what error bands know a table by: its name where it is the packaged one, something else where it is not.

    What was found of a table says nothing about another one of the same name.
    """
    packaged = packaged_targets() / "cores"
    shipped = (packaged / f"{table.name}.yaml").is_file() and load_core(table.name, packaged) == table
    return table.name if shipped else f"your own {table.name}"


@cache
def _load(name: str, folders: tuple[Path, ...]) -> CoreTable:
    merged = _merged(name, folders, ())
    try:
        return CoreTable.model_validate(merged)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'table'}: {e['msg']}" for e in error.errors())
        raise TargetError(f"Core table {_find(name, folders, ())} is wrong: {details}") from error


def _merged(name: str, folders: tuple[Path, ...], seen: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(name, folders, seen)
    table = _read(path)
    table["classes"] = _split_names(table.get("classes", {}))
    base = table.get("extends")
    if base is None:
        return table
    parent = _merged(str(base), folders, (*seen, path))
    merged = {**parent, **table}
    for part in ("sources", "canonical", "pipeline", "queues", "groups", "memory", "classes"):
        merged[part] = {**parent.get(part, {}), **(table.get(part) or {})}
    return merged


def _find(name: str, folders: tuple[Path, ...], seen: tuple[Path, ...]) -> Path:
    """Return the first file of this name that is not being read already."""
    files = [path for path in (folder / f"{name}.yaml" for folder in folders) if path.is_file()]
    unread = next((path for path in files if path not in seen), None)
    if unread is not None:
        return unread
    if files:
        circle = " -> ".join(path.stem for path in (*seen, files[-1]))
        raise TargetError(f"Core tables extend each other in a circle: {circle}")
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    places = ", ".join(map(str, folders))
    raise TargetError(f"There is no core table {name!r} in {places}. {nearest(name, known)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise TargetError(f"Core table {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("classes", {}), dict):
        raise TargetError(f"Core table {path}: expected keys with values, as targets/cores/cortex-a72.yaml has them")
    return content


def _split_names(classes: Mapping[str, Any]) -> dict[str, Any]:
    """Give ``"load_d, load_q": entry`` as two entries."""
    return {name.strip(): entry for names, entry in classes.items() for name in str(names).split(",")}


def core_text(table: CoreTable, place: CorePlace) -> str:
    """What coresim reads: the core at one place, all times in its cycles (``targets/native/coresim/README.md``)."""
    lines = [f"core {table.name}", *_pipeline_lines(table), *_memory_lines(table, place)]
    queues = list(table.queues)
    free = len(queues)  # a queue without a limit, for ports that have none
    lines += [f"queue {i} {int(table.queues[name].value)}" for i, name in enumerate(queues)]
    lines += [
        f"port {i} {free if queue == NO_QUEUE else queues.index(queue)}" for i, queue in enumerate(table.ports.values())
    ]
    lines += [f"dispatch {list(table.ports).index(port)} {int(n.value)}" for port, n in table.dispatch_limits.items()]
    lines += [_class_line(table, name) for name in CLASSES]
    return "\n".join(lines) + "\n"


def _pipeline_lines(table: CoreTable) -> Iterator[str]:
    for name, value in table.pipeline:
        yield f"set {name} {int(value if isinstance(value, bool) else value.value)}"


def _memory_lines(table: CoreTable, place: CorePlace) -> Iterator[str]:
    memory = table.memory
    first = table.classes["load_x"].latency
    yield f"set l1_bytes {place.l1d_kib * 1024}"
    yield f"set l1_ways {int(memory.l1_ways.value)}"
    yield "set l1_latency 0"
    yield "set l1_bytes_per_cycle 64"
    yield f"set l1_outstanding {int(memory.l1_outstanding.value)}"
    for level, kib in (("l2", place.l2_kib), ("l3", place.l3_kib)):
        latency: Number = getattr(memory, f"{level}_latency")
        yield f"set {level}_bytes {(kib or 0) * 1024}"
        yield f"set {level}_ways {int(getattr(memory, f'{level}_ways').value)}"
        yield f"set {level}_latency {max(0.0, latency.value - first):.3f}"
        yield f"set {level}_bytes_per_cycle {getattr(memory, f'{level}_bytes_per_cycle').value}"
        yield f"set {level}_outstanding {int(getattr(memory, f'{level}_outstanding').value)}"
    cycles_per_ns = place.clock_mhz / 1000
    yield f"set memory_latency {max(0.0, place.memory_latency_ns * cycles_per_ns - first):.3f}"
    yield f"set memory_bytes_per_cycle {place.memory_bandwidth_gb_s / cycles_per_ns:.6f}"
    for name, value in memory:
        if not name.startswith(("l1_", "l2_", "l3_")):
            yield f"set {name} {int(value.value)}"


def _class_line(table: CoreTable, name: str) -> str:
    entry = table.classes[name]
    slots = entry.slots or (1 if table.pipeline.in_order else max(1, len(entry.uops)))
    numbers = {port: index for index, port in enumerate(table.ports)}
    operations = []
    for match in filter(None, map(_OPERATION.fullmatch, entry.uops)):
        mask = sum(1 << numbers[port] for port in table.ports_of(match["port"]))
        operations.append(f"{mask}:{match['cycles'] or 1}:{match['delay'] or 0}")
    times = f"{entry.latency} {entry.step} {entry.forward or entry.latency}"
    head = f"class {CLASSES.index(name)} {times} {slots} {int(bool(entry.first))} {len(operations)}"
    return " ".join([head, *operations])
