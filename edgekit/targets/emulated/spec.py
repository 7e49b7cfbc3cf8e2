"""The emulated kind: what the device file of a phone or board holds, each number with its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from edgekit.contracts import Refusal, TargetSpec
from edgekit.errors import nearest
from edgekit.targets.devices import core_names
from edgekit.targets.schema import Device
from edgekit.targets.sourced import check_sources, find_source

Feature = Literal["neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
CacheKib = Annotated[int, Field(ge=1, le=131072)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)


class Cluster(_Strict):
    """Processor cores of one kind, which share a clock."""

    name: Name
    """Such as ``prime``, ``gold``, ``silver``, ``big``, ``little``; keys of ``sources`` and ``primary`` use it."""
    core: str
    """The core table that stands for it: a file in ``targets/cores``."""
    part: Text
    """What the vendor calls the core, such as ``Kryo 360 Gold``."""
    count: int = Field(ge=1, le=256)
    """Cores in the cluster."""
    clock_mhz: float = Field(ge=100, le=6000)
    """The highest clock; a short inference runs at it."""
    l1d_kib: CacheKib
    """Data cache of one core."""
    l2_kib: CacheKib | None = None
    """Second level that one thread can fill: a core's own where cores have one, else the cluster's. Left out: none."""
    note: Text | None = None
    """What a reader must know, such as that the table is that of an older core."""

    @field_validator("core")
    @classmethod
    def _known(cls, value: str) -> str:
        known = core_names()
        if value not in known:
            raise ValueError(f"unknown core {value!r}. {nearest(value, known)}")
        return value


class Memory(_Strict):
    """Main memory as one core of the primary cluster sees it."""

    technology: Text
    """Such as ``LPDDR4X-3733, 4 x 16 bit``."""
    bandwidth_gb_s: float = Field(ge=0.1, le=1000)
    """What one core can stream, in 10^9 bytes a second: less than the bus can carry."""
    latency_ns: float = Field(ge=10, le=1000)
    """Of a load that misses every cache."""


class EmulatedDevice(Device):
    """A phone or a board: its processor's clusters and memory. ``sources`` says where each number is from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)

    kind: Literal["emulated"]
    soc: Text
    """The chip, such as ``Qualcomm Snapdragon 670 (SDM670)``."""
    os: Text
    """What typically runs on it."""
    clusters: tuple[Cluster, ...] = Field(strict=False)
    """Kinds of core, the fastest first by custom."""
    primary: str | None = None
    """Name of the cluster that profiles run on; left out: the one with the highest clock."""
    l3_kib: CacheKib | None = None
    """Cache that all clusters share; left out: there is none."""
    system_cache_kib: CacheKib | None = None
    """Cache between processor and memory that the whole chip shares; left out: none, or not known."""
    memory: Memory
    features: tuple[Feature, ...] = Field(strict=False)
    """Vector instruction sets of the primary cluster."""
    sources: dict[str, Text]
    """Key of a number, or a pattern such as ``clusters.*.clock_mhz``, -> where it is from: an address, a document, or
    ``estimate: reason``. Clusters go by their names: ``clusters.gold.count``."""
    note: Text | None = None
    """What a reader must know of the whole."""

    @field_validator("clusters", "features")
    @classmethod
    def _some(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("expected at least one, received none")
        return value

    @field_validator("clusters")
    @classmethod
    def _each_name_once(cls, value: tuple[Cluster, ...]) -> tuple[Cluster, ...]:
        names = [cluster.name for cluster in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each cluster name once; twice: {', '.join(twice)}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [cluster.name for cluster in self.clusters]
        if self.primary is not None and self.primary not in names:
            raise ValueError(f"primary: no cluster {self.primary!r}. {nearest(self.primary, names)}")
        check_sources(self.sources, list(self.numbers()))
        return self

    @property
    def primary_cluster(self) -> Cluster:
        """The cluster that profiles run on: the named one, else the one with the highest clock."""
        if self.primary is not None:
            return next(cluster for cluster in self.clusters if cluster.name == self.primary)
        return max(self.clusters, key=lambda cluster: cluster.clock_mhz)

    def source(self, key: str) -> str | None:
        """Return where a number is from: its own entry before a pattern's; None when none names it."""
        return find_source(self.sources, key)

    def numbers(self) -> Iterator[str]:
        """Yield the dotted key of every number, as ``sources`` names them."""
        for cluster in self.clusters:
            for field in ("count", "clock_mhz", "l1d_kib", "l2_kib"):
                if getattr(cluster, field) is not None:
                    yield f"clusters.{cluster.name}.{field}"
        for name in ("l3_kib", "system_cache_kib"):
            if getattr(self, name) is not None:
                yield name
        yield "memory.bandwidth_gb_s"
        yield "memory.latency_ns"


SPEC = TargetSpec(
    kind="emulated",
    title="an emulated phone or board",
    device="edgekit.targets.emulated.spec:EmulatedDevice",
    profile="edgekit.targets.emulated.run:profile_emulated",
    diagnose="edgekit.targets.emulated.machine:diagnose_emulated",
    setup="edgekit.targets.emulated.setup:set_up_kind",
    kinds=("emulated",),
    figures=("latency_p50", "instructions", "load_instructions", "peak_memory"),
    runs=(("tflite", "xnnpack"), ("executorch", "xnnpack"), ("executorch", "portable"), ("onnx", "cpu")),
    why_not="the guest is Linux on Arm with LiteRT, ExecuTorch and ONNX Runtime; Core ML exists on Apple systems only",
    one_thread=Refusal(
        reason="its counts are exact for one thread only: threads that wait for each other execute another number of "
        "instructions every time, and no model of several threads has an error that could be stated",
        instead="one thread (num_threads: 1)",
    ),
    reads="edgekit.targets.emulated.reads:decided_by",
)
