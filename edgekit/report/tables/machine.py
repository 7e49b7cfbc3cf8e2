"""Tables of devices and of this machine: which there are, what they can do, what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.report.tables.cells import frame, row
from edgekit.units import format_duration_ms, format_size

if TYPE_CHECKING:
    from edgekit.doctor import DoctorReport, PackageFact
    from edgekit.targets.schema import DeviceListing, Diagnosis


class StoredAnchor(Protocol):
    """A measurement of a device beside the estimate."""

    @property
    def artifact(self) -> str:
        """Name of the file."""

    @property
    def measured_ms(self) -> float:
        """On the real device."""

    @property
    def estimated_ms(self) -> float:
        """By the model alone."""


class CalibratedLayer(Protocol):
    """What the anchors of a device do to one layer of its model."""

    @property
    def model(self) -> str:
        """``static`` or ``trace``."""

    @property
    def factor(self) -> float:
        """Estimates are multiplied by it."""

    @property
    def anchors(self) -> Sequence[StoredAnchor]:
        """What it rests on."""


def targets_table(listings: Iterable[DeviceListing]) -> RenderableType:
    """One row a device file, a broken one with its problem."""
    table = frame(("target", "kind", "from", "description"))
    for listing in listings:
        if listing.device is None:
            row(table, listing.name, "–", listing.origin, Text(listing.problem or "broken", style="red"))
        else:
            row(table, listing.name, listing.device.kind, listing.origin, listing.device.description)
    return table


def diagnosis_table(diagnosis: Diagnosis) -> RenderableType:
    """Whether a device can be used, what was found out, and what stands in the way."""
    table = frame(("fact", "found"))
    for name, fact in diagnosis.facts.items():
        row(table, name, fact)
    word = Text(f"{diagnosis.device}: ") + (
        Text("usable", style="green") if diagnosis.usable else Text("cannot be used", style="bold red")
    )
    return Group(word, table, *(Text(f"problem: {problem}", style="yellow") for problem in diagnosis.problems))


def doctor_table(report: DoctorReport) -> RenderableType:
    """What this machine is, what each format can do on it, which packages and tools are there, and what to mend."""
    machine = frame(("machine", "found"))
    for name, fact in report.machine.items():
        row(machine, name, fact)
    row(machine, "instruction sets", ", ".join(report.cpu_flags) or "–")
    row(machine, "gpu", report.gpu)
    row(machine, "cache", f"{report.cache_folder} ({format_size(report.disk_free_bytes)} free)")
    formats = frame(("format", "backend", "exports", "runs", "why not"), whole=("format", "backend"))
    for backend in report.backends:
        row(formats, backend.format, backend.backend, _yes(backend.exports), _yes(backend.runs), backend.reason or "")
    extras = frame(("extra", "whole", "packages"), whole=("extra",))
    for extra in report.extras:
        row(extras, extra.name, _yes(extra.satisfied), ", ".join(_package(package) for package in extra.packages))
    others = frame(("tool or device", "here", "place"))
    for tool, place in report.tools.items():
        row(others, tool, _yes(place is not None), place or "")
    for piece in report.emulation:
        row(others, f"emulation: {piece.name}", _yes(piece.ready), piece.found)
    for device in report.devices:
        row(others, f"target {device.device}", _yes(device.usable), "")
    problems = (Text(f"problem: {problem}", style="yellow") for problem in report.problems)
    return Group(Text(f"edgekit {report.edgekit}"), machine, formats, extras, others, *problems)


def calibration_table(layers: Iterable[CalibratedLayer]) -> RenderableType:
    """One row an anchor: what was measured, what the model said, and the factor that all anchors of a layer give."""
    numbers = ("measured", "estimated", "factor")
    table = frame(("model", "artifact", *numbers), numbers)
    for layer in layers:
        for anchor in layer.anchors:
            factor = f"{anchor.measured_ms / anchor.estimated_ms:.3f}"
            times = (format_duration_ms(anchor.measured_ms), format_duration_ms(anchor.estimated_ms))
            row(table, layer.model, anchor.artifact, *times, factor)
        row(table, layer.model, Text("all (geometric mean)", style="bold"), "", "", f"{layer.factor:.3f}")
    return table


def _yes(value: bool) -> Text:
    return Text("yes", style="green") if value else Text("no", style="yellow")


def _package(package: PackageFact) -> str:
    if package.satisfied:
        return f"{package.name} {package.installed}"
    found = f"{package.installed} is installed" if package.installed else "missing"
    return f"{package.name} ({found}, {package.required or 'any version'} is needed)"
