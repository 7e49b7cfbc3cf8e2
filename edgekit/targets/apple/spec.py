"""The apple kind: what the device file of an Apple chip holds, each number with its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from edgekit.contracts import Refusal, TargetSpec
from edgekit.records import ComputeUnits, Unit
from edgekit.targets.schema import Device
from edgekit.targets.sourced import check_sources, find_source

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Rate = Annotated[float, Field(ge=1, le=1e7)]
Share = Annotated[float, Field(gt=0, le=1)]
Microseconds = Annotated[float, Field(ge=0, le=1e5)]
Cores = Annotated[int, Field(ge=1, le=256)]
Clock = Annotated[float, Field(ge=100, le=6000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)


class Processor(_Strict):
    """What a roofline needs of a unit: how fast it computes and moves bytes, and what starting it costs."""

    gflops_fp16: Rate
    """10^9 operations a second in float16 at most; a multiply-accumulate is two."""
    sustained_share: Share
    """Of the peak, what whole networks reach."""
    stream_gb_s: Rate
    """How fast it streams from and to main memory, in 10^9 bytes a second: at most the bus, often less."""
    on_chip_kib: Annotated[int, Field(ge=1, le=1048576)]
    """Memory of its own, in which what one operation reads and writes stays where it fits."""
    on_chip_gb_s: Rate
    """How fast that memory streams."""
    launch_us: Microseconds
    """Microseconds to hand it a run of operations and to hear that they are done."""
    operation_us: Microseconds
    """Microseconds that each operation costs besides its work."""


class Cpu(Processor):
    """The processor cores and their matrix unit."""

    performance_cores: Cores
    efficiency_cores: Cores
    clock_mhz: Clock
    """Highest clock of the performance cores."""
    gflops_fp32: Rate


class Gpu(Processor):
    """The graphics processor."""

    cores: Cores
    clock_mhz: Clock
    gflops_fp32: Rate


class NeuralEngine(Processor):
    """The matrix accelerator. It computes in float16, and in int8 where it has a path for it."""

    cores: Cores
    published_tops: Rate
    """10^12 operations a second as Apple advertises them."""
    published_precision: Literal["fp16", "int8"]
    """Of which precision that is true."""
    gops_int8: Rate | None = None
    """10^9 operations a second on int8 weights and activations; left out: no faster than float16."""


class Memory(_Strict):
    """Main memory, which all units share."""

    technology: Text
    """Such as ``LPDDR5-6400, 64 bit``."""
    bandwidth_gb_s: Rate
    """Of the bus, in 10^9 bytes a second."""


class AppleDevice(Device):
    """An Apple chip. ``sources`` says where each number is from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)

    kind: Literal["apple"]
    chip: Annotated[str, Field(pattern=r"^[am][0-9]+(-[a-z]+)?$")]
    """In the words of ``edgekit inspect --chip``."""
    title: Text
    """As the system calls it (``sysctl machdep.cpu.brand_string``): a Mac that says the same is measured."""
    devices: tuple[Text, ...] = Field(strict=False, min_length=1)
    """Where it is found."""
    os: Text
    """What typically runs on it."""
    compute_units: ComputeUnits = "all"
    """Which units Core ML may use."""
    cpu: Cpu
    gpu: Gpu
    neural_engine: NeuralEngine
    memory: Memory
    system_cache_kib: Annotated[int, Field(ge=1, le=1048576)]
    """Cache between all units and memory."""
    sources: dict[str, Text]
    """Key of a number, or a pattern such as ``gpu.*``, -> where it is from: an address, ``recalled: document``, or
    ``estimate: reason``."""
    note: Text | None = None
    """What a reader must know of the whole."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_sources(self.sources, list(self.numbers()))
        return self

    def source(self, key: str) -> str | None:
        """Return where a number is from: its own entry before a pattern's; None when none names it."""
        return find_source(self.sources, key)

    def processor(self, unit: Unit) -> Processor:
        """Return the figures of a unit."""
        units: dict[Unit, Processor] = {"cpu": self.cpu, "gpu": self.gpu, "neural_engine": self.neural_engine}
        return units[unit]

    def numbers(self) -> Iterator[str]:
        """Yield the dotted key of every number, as ``sources`` names them."""
        for name in ("cpu", "gpu", "neural_engine", "memory"):
            section: BaseModel = getattr(self, name)
            for field, value in section:
                if isinstance(value, int | float):
                    yield f"{name}.{field}"
        yield "system_cache_kib"


SPEC = TargetSpec(
    kind="apple",
    title="an Apple chip",
    device="edgekit.targets.apple.spec:AppleDevice",
    profile="edgekit.targets.apple.run:profile_apple",
    diagnose="edgekit.targets.apple.machine:diagnose_apple",
    kinds=("predicted", "measured"),
    figures=("latency_p50",),
    refuses="edgekit.targets.apple.machine:why_not",
    one_thread=Refusal(
        reason="Core ML chooses its threads by itself",
        instead="one thread (num_threads: 1)",
    ),
    reads="edgekit.targets.apple.machine:decided_by",
)
